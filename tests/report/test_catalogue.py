from onnxq.passes.clean.drop_identity import DropIdentity
from onnxq.passes.clean.raise_opset import RaiseOpset
from onnxq.recipe import parse_pass
from onnxq.report.catalogue import describe_pass


def test_a_page_is_read_off_the_class_and_its_file() -> None:
    page = describe_pass(DropIdentity)
    assert (page.name, page.law, page.contract) == ("drop-identity", "Identity(x) => x.", "bitwise")
    assert page.options == ()


def test_options_are_told_as_they_are_written() -> None:
    (option,) = describe_pass(RaiseOpset).options
    assert option.type == "a whole number"
    assert parse_pass(f"raise-opset{{{option.name}={option.default}}}") == RaiseOpset()
