"""What a prediction leaves behind: masks, statistics, a preview and the manifest.

Import the names from their modules; this package loads nothing by itself, so that commands which
only list prompts stay fast.
"""
