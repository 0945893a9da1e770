"""Made-up brain tumors with reports: heads, lesions, scans, texts, and a data set of them."""
