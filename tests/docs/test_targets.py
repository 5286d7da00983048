"""The page of targets says what the targets say."""

from onnxq.targets import TARGETS
from tests.docs.targets import PAGE, page


def test_the_page_of_targets_is_what_the_targets_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.docs.targets"


def test_every_target_and_every_form_is_told() -> None:
    text = page()
    assert all(f"| `{name}` |" in text for name in TARGETS)
    assert all(f"| {slug} |" in text for target in TARGETS.values() for slug in target.forbidden)
