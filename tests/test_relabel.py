"""Public names say that they are of the package that users import them from."""

from __future__ import annotations

import pytest

from trio_connect._relabel import publish, relabel


def made(module: str) -> type[object]:
    return type("Made", (), {"__module__": module})


def test_what_a_private_module_of_the_package_has_is_the_packages() -> None:
    value = made("trio_connect.queues._set")
    relabel(value, "trio_connect.queues")
    assert value.__module__ == "trio_connect.queues"


@pytest.mark.parametrize("module", ["trio_connect", "trio_connect._policy", "trio_connect.queues", "trio"])
def test_what_another_package_has_stays_its_own(module: str) -> None:
    value = made(module)
    relabel(value, "trio_connect.queues")
    assert value.__module__ == module


def test_a_package_may_have_modules_elsewhere() -> None:
    value = made("trio_connect._outbound_values")
    relabel(value, "trio_connect.outbound", "trio_connect.outbound._", "trio_connect._")
    assert value.__module__ == "trio_connect.outbound"


def test_what_knows_no_module_is_left_alone() -> None:
    relabel(1, "trio_connect")


def test_a_package_publishes_what_it_imports_under_a_public_name() -> None:
    value, other = made("trio_connect.queues._set"), made("trio_connect._policy")
    package = {"__name__": "trio_connect.queues", "_publish": publish, "QueueSet": value, "RacePolicy": other, "A": 1}
    publish(package)
    assert package["__all__"] == ["A", "QueueSet", "RacePolicy"]
    assert (value.__module__, other.__module__) == ("trio_connect.queues", "trio_connect._policy")
    publish(package, "trio_connect._")
    assert other.__module__ == "trio_connect.queues"


def test_what_loads_later_is_published_too() -> None:
    package: dict[str, object] = {"__name__": "trio_connect", "now": 1}
    publish(package, later=["connect"])
    assert package["__all__"] == ["connect", "now"]
