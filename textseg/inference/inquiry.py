"""What a model is asked about a scan: what somebody wrote, or what a report states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from textseg.errors import PromptError
from textseg.imaging import Modality
from textseg.inference.nesting import with_parts
from textseg.inference.sites import SitePlan, plan_site
from textseg.knowledge import KnowledgeTree
from textseg.network.weights import Domain, ModelManifest
from textseg.prompts import Resolution
from textseg.prompts.finding_prompt import FindingPrompt, as_prompts
from textseg.prompts.report import Finding, read_findings
from textseg.reports.given import GivenReport


@dataclass(frozen=True, eq=False)
class Site:
    """Where a report puts a lesion.

    Attributes:
        plan: How the lesion is narrowed to it.
        domains: For each structure whose mask this needs, the domain that segments it.
    """

    plan: SitePlan
    domains: Mapping[str, Domain]


@dataclass(frozen=True, eq=False)
class Asked:
    """One prompt.

    Attributes:
        resolution: What it means.
        domain: Where the model segments that; None if it does not, or nowhere all of it.
        site: Where the report puts it; None for what somebody wrote.
        findings: What the report states of it.
    """

    resolution: Resolution
    domain: Domain | None
    site: Site | None = None
    findings: tuple[Finding, ...] = ()

    def concepts_of(self, domain: Domain) -> tuple[str, ...]:
        """Those that the answer needs of a domain."""
        own = self.resolution.concepts if self.domain is domain else ()
        around = self.site.domains if self.site is not None else {}
        return (*own, *(concept for concept, place in around.items() if place is domain))


@dataclass(frozen=True, eq=False)
class Inquiry:
    """All that is asked at once.

    Attributes:
        asked: The prompts, in order.
        findings: Everything that the report states, if the prompts are made of it; None if
            somebody wrote them.
    """

    asked: tuple[Asked, ...]
    findings: tuple[Finding, ...] | None = None

    def concepts_of(self, domain: Domain, tree: KnowledgeTree) -> tuple[str, ...]:
        """Those that the answers need of a domain, each once, lesions with their parts."""
        needed = [concept for each in self.asked for concept in each.concepts_of(domain)]
        return with_parts(needed, tree, domain.concepts)

    def caveats(self, model: str) -> tuple[str, ...]:
        """That a report has nothing for the model of that name to look for, if so."""
        if self.findings is None or any(each.resolution.status == "ok" for each in self.asked):
            return ()
        stated = sum(not finding.negated for finding in self.findings)
        denied = len(self.findings) - stated
        told = f"{stated} findings stated, {denied} denied"
        return (f"the report states nothing that the model {model} can segment ({told})",)


@dataclass(frozen=True, eq=False)
class Inquirer:
    """Finds out where a model answers what, on scans of one modality."""

    manifest: ModelManifest
    tree: KnowledgeTree
    modality: Modality | None

    def written(self, resolutions: Iterable[Resolution]) -> Inquiry:
        """Prompts that mean this."""
        return Inquiry(tuple(Asked(r, self._domain_of(r.concepts)) for r in resolutions))

    def stated(self, report: GivenReport | None) -> Inquiry:
        """What a report states.

        Raises:
            PromptError: There is no report, or only its features are known.
        """
        if report is None:
            raise PromptError(
                "neither a prompt nor a report is given.", remedy="Say what to segment."
            )
        if report.features is not None:
            raise PromptError(
                "the features of a report do not tell what to segment.",
                path=report.features,
                remedy="Give prompts as well, or the report as text.",
            )
        findings = read_findings(report.text, self.tree, modality=self.modality)
        prompts = as_prompts(findings, self.tree, self.manifest.supported)
        return Inquiry(tuple(map(self._asked, prompts)), findings)

    def _asked(self, prompt: FindingPrompt) -> Asked:
        meaning = _without_words(prompt.resolution, self.tree)
        domain = self._domain_of(meaning.concepts)
        site = None if domain is None else self._site(prompt, domain)
        return Asked(meaning, domain, site, prompt.findings)

    def _domain_of(self, concepts: Iterable[str]) -> Domain | None:
        """The domain that segments all of them, the scan's modality preferred."""
        wanted = set(concepts)
        able = [d for d in self.manifest.domains if wanted and wanted <= set(d.concepts)]
        return next(iter([*filter(self._matches, able), *able]), None)

    def _site(self, prompt: FindingPrompt, domain: Domain) -> Site:
        others = [d for d in self.manifest.domains if d is not domain and self._matches(d)]
        # the lesion's own domain comes last, so that it counts where several know a structure
        known = {concept: d for d in (*reversed(others), domain) for concept in d.concepts}
        plan = plan_site(
            prompt.site, prompt.resolution.concepts, self.tree, supported=known, side=prompt.side
        )
        return Site(plan, {concept: known[concept] for concept in plan.asked(self.tree)})

    def _matches(self, domain: Domain) -> bool:
        return self.modality in domain.modalities


def _without_words(resolution: Resolution, tree: KnowledgeTree) -> Resolution:
    """The resolution with warnings that quote no report, since these are kept in manifests."""
    names = " and ".join(tree[concept].name for concept in resolution.concepts)
    told = (f"Interpreted as {names}." if "'" in why else why for why in resolution.warnings)
    return replace(resolution, warnings=tuple(dict.fromkeys(told)))
