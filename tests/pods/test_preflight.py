"""Why a machine has no pods, and the one command that would allow them."""

import pytest

from devmesh.pods.preflight import explain, missing_tools


def test_missing_programs_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr("devmesh.pods.preflight.TOOLS", {"nowhere-ip": "iproute2", "nowhere-restore": "iptables", "sh": "dash"})
    refusal = missing_tools()
    assert refusal is not None
    assert refusal.why == "pods need nowhere-ip, nowhere-restore"
    assert refusal.hint == "sudo apt-get install iproute2 iptables"


def test_a_machine_that_has_them_is_not_refused():
    assert missing_tools(lambda tool: f"/usr/bin/{tool}") is None


@pytest.mark.parametrize(
    ("settings", "why", "hint"),
    [
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "unshare: Operation not permitted",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"kernel/unprivileged_userns_clone": "0"},
            "unshare: Operation not permitted",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        ({"user/max_user_namespaces": "0"}, "unshare: No space left on device", "sudo sysctl -w user.max_user_namespaces=15000"),
        ({"user/max_net_namespaces": "0"}, "unshare: No space left on device", "sudo sysctl -w user.max_net_namespaces=15000"),
        ({}, "iptables-restore --noflush: table nat does not exist", "sudo modprobe"),
        ({"kernel/unprivileged_userns_clone": "1"}, "unshare: Operation not permitted", "--privileged"),
    ],
)
def test_each_refusal_has_the_command_that_lifts_it(settings, why, hint):
    refusal = explain(why, settings.get)
    assert why.partition(": ")[2] in refusal.why
    assert hint in refusal.hint
