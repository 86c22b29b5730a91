"""From a profile, files and `--set` to what a mesh does: the merged IstioOperator, and the part of it that is honoured here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from devmesh.config.addon_names import ADDONS
from devmesh.config.durations import format_duration, parse_duration
from devmesh.config.model import Diagnostic, SourcePosition
from devmesh.config.operator.certificate_life import SECRET_TTL, refused_life
from devmesh.config.operator.effects import EGRESS, INGRESS, NO_EFFECT, without_effect
from devmesh.config.operator.files import SettingsFile
from devmesh.config.operator.merge import Json, SetFlag, Step, merged, set_path
from devmesh.config.operator.profiles import UP_DEFAULT, profile
from devmesh.config.operator.schema import SPEC, Setting, check
from devmesh.errors import DevmeshError, UsageError

NO_CONTROL_PLANE = "devmesh profile dump {name} shows it; as a base: --set components.pilot.enabled=true"
REMOTE, REMOTE_PILOT = "remote", "values.global.remotePilotAddress"
DEFAULT_SAMPLING = 1.0  # percent; istiod's PILOT_TRACE_SAMPLING


@dataclass(frozen=True, slots=True)
class MeshChoices:
    """What was chosen. `operator` is the merged document; `diagnostics` name what of it does nothing here."""

    profile: str
    operator: Mapping[str, Any]
    diagnostics: tuple[Diagnostic, ...] = field(default=(), compare=False)

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.operator["spec"]
        return spec

    def at(self, path: str) -> Any:
        """The value below `spec`, None when nobody gave one."""
        value: Any = self.spec
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def mesh_config(self) -> Json:
        """MeshConfig as the control plane reads it from the KV (compiler.world.MeshSettings), without the mesh's id."""
        config = _Config(merged(self.at("meshConfig") or {}, self.at("values.meshConfig") or {}))
        sampling = config.at("defaultConfig.tracing.sampling")
        if sampling is None:
            sampling = self.at("values.pilot.traceSampling")
        out: Json = {
            "tracing_sampling": float(DEFAULT_SAMPLING if sampling is None else sampling),
            "enable_tracing": config.at("enableTracing") is not False,
            "access_log_file": "/dev/stdout" if config.at("accessLogFile") else "",
            "access_log_encoding": config.word("accessLogEncoding", "TEXT", "JSON"),
            "outbound_traffic_policy": _policy(config),
        }
        if timeout := config.at("connectTimeout"):
            out["connect_timeout"] = format_duration(parse_duration(timeout))
        if retries := config.at("defaultHttpRetryPolicy"):
            out["default_http_retry_policy"] = retries
        if life := config.at(SECRET_TTL.removeprefix("meshConfig.")):
            out["secret_ttl"] = parse_duration(str(life))
        return out

    @property
    def ingress_gateway(self) -> bool:
        return self._gateway("ingressGateways", INGRESS, unless_given=True)

    @property
    def egress_gateway(self) -> bool:
        return self._gateway("egressGateways", EGRESS, unless_given=False)

    def _gateway(self, component: str, name: str, *, unless_given: bool) -> bool:
        """As istioctl: a gateway in the list is on unless it says no, or the chart's own switch does (AltEnablementPath)."""
        given = self.at(f"components.{component}")
        on = unless_given if given is None else any(_is(one, name) and one.get("enabled") is not False for one in given)
        gateways = self.at("values.gateways") or {}
        return on or (gateways.get(name) or {}).get("enabled") is True

    @property
    def addons(self) -> tuple[str, ...]:
        """Grafana without Prometheus would have nothing to show; a remote mesh's sidecars are in the first one's Prometheus."""
        if self.profile == REMOTE:
            return ()
        given = self.at("addonComponents") or {}
        on = [name for name in ADDONS if (given.get(name) or {}).get("enabled") is True]
        return ADDONS if "grafana" in on else tuple(on)

    @property
    def remote_pilot_address(self) -> str:
        """The folder of the mesh to be joined; "" for a mesh with a control plane of its own."""
        return str(self.at(REMOTE_PILOT) or "") if self.profile == REMOTE else ""

    def to_json(self) -> Json:
        """What a runtime is given and `state.json` keeps."""
        return {
            "profile": self.profile,
            "ingressGateway": self.ingress_gateway,
            "egressGateway": self.egress_gateway,
            "addons": list(self.addons),
            "remotePilotAddress": self.remote_pilot_address,
            "mesh_config": self.mesh_config(),
            "operator": dict(self.operator),
        }


@dataclass(frozen=True, slots=True)
class _Config:
    value: Mapping[str, Any]

    def at(self, path: str) -> Any:
        value: Any = self.value
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def word(self, path: str, *names: str) -> str:
        """An enum's name; JSON for protobuf takes its number too. The first is the default."""
        value = self.at(path)
        return names[value] if isinstance(value, int) else str(value or names[0])


def _policy(config: _Config) -> str:
    mode = config.at("outboundTrafficPolicy.mode")
    return "REGISTRY_ONLY" if mode in ("REGISTRY_ONLY", 0) and not isinstance(mode, bool) else "ALLOW_ANY"


def _is(gateway: Any, name: str) -> bool:
    """A gateway without a name has the chart's."""
    return isinstance(gateway, Mapping) and gateway.get("name", name) == name


def choose(
    chosen: str | None = None, files: Sequence[SettingsFile] = (), flags: Sequence[str] = (), unless_chosen: str = UP_DEFAULT
) -> MeshChoices:
    """Merge in istioctl's order: profile, files, `--set`. Raises UsageError for flags, DevmeshError with every mistake in files."""
    parsed = [SetFlag.parse(flag) for flag in flags]
    found = [*_from_files(files), *_from_flags(parsed)]
    errors = [one for one in found if isinstance(one, Diagnostic)]
    errors += [why for one in found if isinstance(one, Setting) and (why := refused_life(one)) is not None]
    if errors:
        raise _refused(errors)
    users: Json = {"spec": {}}
    for file in files:
        users = merged(users, {"spec": file.value})
    for flag in parsed:
        set_path(users["spec"], flag)
    name = _profile(chosen, files, parsed, unless_chosen)
    operator = merged(merged(profile(name), users), {"spec": {"profile": name}})
    nothing = [one for setting in found if isinstance(setting, Setting) and (one := without_effect(setting)) is not None]
    choices = MeshChoices(name, operator, tuple(nothing))
    return MeshChoices(name, operator, (*nothing, *_implied(choices)))


def _implied(choices: MeshChoices) -> Iterator[Diagnostic]:
    given = choices.at("addonComponents") or {}
    if "grafana" in choices.addons and (given.get("prometheus") or {}).get("enabled") is False:
        words = "addonComponents.prometheus.enabled is false and has no effect: grafana shows what prometheus keeps"
        yield Diagnostic("warning", NO_EFFECT, None, words)
    if choices.at(REMOTE_PILOT) and choices.profile != REMOTE:
        yield Diagnostic("warning", NO_EFFECT, None, f"{REMOTE_PILOT} has no effect here: only profile {REMOTE} joins another mesh")
    if choices.profile == REMOTE:
        on = [name for name, is_on in ((INGRESS, choices.ingress_gateway), (EGRESS, choices.egress_gateway)) if is_on]
        for name in (one for one in ADDONS if (given.get(one) or {}).get("enabled") is True):
            yield Diagnostic(
                "warning", NO_EFFECT, None, f"addonComponents.{name} has no effect here: the first mesh's serves a remote one too"
            )
        for name in on:
            yield Diagnostic("warning", NO_EFFECT, None, f"{name} has no effect here: the first mesh's gateways serve a remote one too")


def refuse_nothing(choices: MeshChoices) -> None:
    """Raise DevmeshError for settings under which there is no mesh to bring up."""
    if choices.at("components.pilot.enabled") is False:
        raise DevmeshError(
            f"profile {choices.profile} has no control plane here (components.pilot.enabled is false): nothing would be meshed",
            NO_CONTROL_PLANE.format(name=choices.profile),
        )
    if choices.profile == REMOTE and not choices.remote_pilot_address:
        raise DevmeshError(
            "profile remote joins the control plane of another mesh, and nothing says which",
            f"devmesh up --set profile=remote --set {REMOTE_PILOT}=../folder-of-the-first-mesh",
        )


def _profile(chosen: str | None, files: Sequence[SettingsFile], flags: Iterable[SetFlag], unless_chosen: str) -> str:
    by_flag = [str(flag.value) for flag in flags if flag.steps in (("profile",), ("values", "profile"))]
    if chosen and by_flag and by_flag[-1] != chosen:
        raise UsageError(f"--profile {chosen} and --set profile={by_flag[-1]} contradict each other", "give one of them")
    by_file = [file.profile for file in files if file.profile]
    return next((name for name in (*by_flag[-1:], chosen, *by_file[-1:]) if name), unless_chosen)


def _from_files(files: Iterable[SettingsFile]) -> Iterator[Setting | Diagnostic]:
    for file in files:
        yield from check(file.body, file.kind, file.prefix, file.place, file.inner)


def _from_flags(flags: Iterable[SetFlag]) -> Iterator[Setting | Diagnostic]:
    for flag in flags:
        where = SourcePosition(f"--set {flag.text}")
        yield from check(_nested(flag.steps, flag.value), SPEC, "", lambda _, where=where: where)  # type: ignore[misc] # mypy cannot infer


def _nested(steps: Sequence[Step], value: Any) -> Any:
    """`("a", 0, "b")` -> {"a": [{"b": value}]}: what a flag alone says."""
    for step in reversed(steps):
        value = {step: value} if isinstance(step, str) else [value]
    return value


def _refused(errors: Sequence[Diagnostic]) -> DevmeshError:
    flags = all(one.where is not None and one.where.file.startswith("--set ") for one in errors)
    hint = next((one.hint for one in errors if one.hint), None) or "mend the settings: devmesh profile dump shows what they look like"
    return (UsageError if flags else DevmeshError)("\n".join(map(str, errors)), hint)
