"""`--format`, as docker's users write it."""

import json

import pytest

from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e


@pytest.fixture
def box(client: Client, world: World) -> World:
    """A world with the container `one`."""
    client.run("busybox", "sleep 1000", name="one", labels={"a.b": "c"}, ports={80: 8080}, volumes=["data:/d"])
    return world


def test_ps_shows_what_a_template_asks_for(box: World) -> None:
    """Fields, a table with docker's headings, JSON."""
    assert box.wherry("ps", "--format", "{{.Names}} {{.Image}} {{.State}}").stdout == "one busybox running\n"
    assert box.wherry("ps", "--format", '{{.Label "a.b"}}/{{.Labels}}/{{.Mounts}}').stdout == "c/a.b=c/data\n"
    table = box.wherry("ps", "--format", r"table {{.Names}}\t{{.Ports}}\t{{.Networks}}").stdout
    assert [line.split() for line in table.splitlines()] == [
        ["NAMES", "PORTS", "NETWORKS"],
        ["one", "0.0.0.0:8080->80/tcp", "bridge"],
    ]
    assert json.loads(box.wherry("ps", "--format", "{{json .}}").stdout)["Names"] == "one"
    assert json.loads(box.wherry("ps", "--format", "json").stdout)["Labels"] == "a.b=c"
    refused = box.wherry("ps", "--format", "{{.Nmaes}}", check=False)
    assert (refused.returncode, "no field 'Nmaes'; there are" in refused.stderr) == (1, True)


def test_inspect_goes_into_its_document(box: World) -> None:
    """The forms in docker's own documentation."""
    asked = {
        "{{.State.Status}} {{.Name}}": "running /one\n",
        "{{.Config.Labels}}": "map[a.b:c]\n",
        '{{index .Config.Labels "a.b"}}': "c\n",
        "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}": "80/tcp -> 8080\n",
        "{{json .Config.Cmd}}": '["sleep","1000"]\n',
        "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}": None,
    }
    for template, shown in asked.items():
        said = box.wherry("inspect", "-f", template, "one").stdout
        assert said == shown if shown is not None else said.count(".") == 3
    both = box.wherry("inspect", "--format", "{{.Id}}", "one", "absent", check=False)
    assert (both.returncode, len(both.stdout)) == (1, 65)
    assert "no such object: absent" in both.stderr
    assert box.wherry("volume", "inspect", "-f", "{{.Name}}", "data").stdout == "data\n"
    assert box.wherry("network", "inspect", "-f", "{{.Name}}:{{.Driver}}", "bridge").stdout == "bridge:bridge\n"


def test_lists_samples_and_events_have_templates_too(box: World) -> None:
    """images, volume ls, network ls, stats, events."""
    assert box.wherry("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == "busybox:latest\n"
    assert box.wherry("volume", "ls", "--format", "{{.Name}}").stdout == "data\n"
    assert "bridge" in box.wherry("network", "ls", "--format", "{{.Name}}").stdout.splitlines()
    sample = box.wherry("stats", "--no-stream", "--format", r"table {{.Name}}\t{{.PIDs}}\t{{.CPUPerc}}").stdout
    assert [line.split()[:2] for line in sample.splitlines()] == [["NAME", "PIDS"], ["one", "1"]]
    told = box.wherry(
        *("events", "--since", "1h", "--until", "0s", "--filter", "event=start"),
        *("--format", "{{.Type}} {{.Action}} {{.Status}} {{.Actor.Attributes.name}} {{.From}}"),
    ).stdout
    assert told == "container start start one busybox\n"
