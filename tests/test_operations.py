"""The files of docs/operations: what they name exists, and the programs that read them take them."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mycorrizal._agent.exposition import PREFIX
from mycorrizal._agent.metrictable import METRICS
from mycorrizal._runtime.host.settings_sources import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "docs" / "operations"
EXPORTED = {PREFIX + metric.exported for metric in METRICS.values()}
EXPORTED |= {name + part for name in EXPORTED if name.endswith("_seconds") for part in ("_bucket", "_sum", "_count")}


@pytest.mark.parametrize("path", [FILES / "alerts.yml", FILES / "grafana.json", ROOT / "docs" / "metrics.md"])
def test_every_metric_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[a-z0-9_]+", path.read_text("utf-8")))
    assert len(named) > 10 and named - EXPORTED == set()


def test_the_dashboard_is_one() -> None:
    board = json.loads((FILES / "grafana.json").read_text("utf-8"))
    assert board["title"] == "mycorrizal" and board["schemaVersion"] >= 36 and board["uid"]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) > 10
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) and all(x in (0, 12) for x, _ in places)
    for panel in panels:
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")") and "_total" not in target["legendFormat"]
            assert target["datasource"]["uid"] == "${datasource}"
        assert [target["refId"] for target in panel["targets"]] == [chr(65 + n) for n in range(len(panel["targets"]))]


def test_counters_are_looked_at_as_rates() -> None:
    """A counter by itself says how old the process is."""
    text = (FILES / "grafana.json").read_text("utf-8") + (FILES / "alerts.yml").read_text("utf-8")
    for line in re.findall(r'"?expr"?: (.*)', text):
        for name in re.findall(rf"{PREFIX}\w+_(?:total|bucket|count)", line):
            assert re.search(rf"(?:rate|increase)\({name}(?:\{{.*?\}})?\[", line), line


def test_prometheus_takes_the_rules(need_peer: Callable[[str], str]) -> None:
    command = [need_peer("promtool"), "check", "rules", str(FILES / "alerts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(re.findall(r"- alert:", (FILES / "alerts.yml").read_text("utf-8")))
    assert f"SUCCESS: {count} rules found" in done.stdout


def test_systemd_takes_the_unit(need_peer: Callable[[str], str], tmp_path: Path) -> None:
    program = need_peer("systemd-analyze")
    here = Path(sys.executable).parent / "mycorrizal"
    text = (FILES / "mycorrizal.service").read_text("utf-8")
    unit = tmp_path / "mycorrizal.service"  # systemd looks whether the command is there
    unit.write_text(text.replace("ExecStart=/opt/mycorrizal/bin/mycorrizal", f"ExecStart={here}"))
    command = [program, "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    ours = [line for line in done.stderr.splitlines() if "mycorrizal" in line]
    assert done.returncode == 0 and ours == [], done.stderr


def variables(text: str) -> set[str]:
    """Return the settings that a file gives through the environment."""
    return {name.lower() for name in re.findall(r"\bMYCORRIZAL_([A-Z_]+)", text)}


@pytest.mark.parametrize("name", ["mycorrizal.service", "Containerfile", "compose.yaml"])
def test_variables_that_are_set_exist(name: str) -> None:
    found = variables((FILES / name).read_text("utf-8"))
    assert found and found - set(ENVIRONMENT) - {"config", "runtime_dir"} == set()


def test_unit_keeps_what_an_agent_needs() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FILES / "mycorrizal.service")
    service = unit["Service"]
    assert service["Type"] == "notify" and int(service["WatchdogSec"]) >= 10
    assert int(service["TimeoutStopSec"]) > 10, "a goodbye takes up to 8 s"
    assert service["RuntimeDirectoryMode"] == service["StateDirectoryMode"] == "0700"
    assert "AF_UNIX" in service["RestrictAddressFamilies"] and "@system-service" in service["SystemCallFilter"]
    assert "mycorrizal_key=" not in (FILES / "mycorrizal.service").read_text().lower()


def test_the_containerfile_is_one() -> None:
    text = re.sub(r"\\\n", " ", (FILES / "Containerfile").read_text("utf-8"))
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT"}
    assert {word for word, _ in lines} <= known and lines[0][0] == "FROM"
    last = dict(lines)
    assert json.loads(last["ENTRYPOINT"]) == ["mycorrizal", "agent"], "exec form, or a shell keeps SIGTERM to itself"
    assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2]) == ["mycorrizal", "health"]
    assert last["USER"] == "mycorrizal" and last["STOPSIGNAL"] == "SIGTERM"
    assert {"7946/tcp", "7946/udp", "7947/udp"} == set(last["EXPOSE"].split())
    extras = re.findall(r"\.\[([\w,]+)\]", text)
    assert extras and set(extras[0].split(",")) <= set(setup()["options.extras_require"])
    images = [rest.split()[0] for word, rest in lines if word == "FROM"]
    assert all(re.search(r"python:3\.1[1-9]-slim$", image) for image in images)


def setup() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "setup.cfg")
    return found


def test_the_compose_file_is_one() -> None:
    found = yaml.safe_load((FILES / "compose.yaml").read_text("utf-8"))
    assert set(found) == {"name", "x-agent", "services", "secrets"}
    services = found["services"]
    assert set(services) == {"alice", "bob", "carol", "prometheus"}
    known = {"build", "image", "environment", "secrets", "stop_grace_period", "restart", "hostname", "network_mode"}
    for name, service in services.items():
        assert set(service) <= known | {"volumes"}, name
        if name == "prometheus":
            assert service["network_mode"] == "service:alice"
            assert all((FILES / volume.split(":")[0]).exists() for volume in service["volumes"])
            continue
        build = service["build"]
        assert (FILES / build["context"] / build["dockerfile"]).resolve() == FILES / "Containerfile"
        assert service["secrets"] == list(found["secrets"]) and service["environment"]["MYCORRIZAL_NAME"] == name
        assert all(isinstance(value, str) for value in service["environment"].values()), name
        assert service["environment"]["MYCORRIZAL_KEY_FILE"] == f"/run/secrets/{service['secrets'][0]}"
        assert int(service["stop_grace_period"].removesuffix("s")) > 10


@pytest.mark.parametrize("name", ["alerts.yml", "prometheus.yml"])
def test_files_of_prometheus_are_yaml(name: str) -> None:
    found = yaml.safe_load((FILES / name).read_text("utf-8"))
    if name == "alerts.yml":
        rules = [rule for group in found["groups"] for rule in group["rules"]]
        assert len({rule["alert"] for rule in rules}) == len(rules) > 5
        for rule in rules:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}
    else:
        assert found["rule_files"] == ["alerts.yml"] and found["scrape_configs"][0]["job_name"] == "mycorrizal"
