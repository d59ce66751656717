"""Go's templates, as far as docker's users write them."""

import pytest

from wherry.gotemplate import render
from wherry_oci.errors import InvalidArgument

pytestmark = pytest.mark.unit

_DOCUMENT = {
    "Name": "/web",
    "State": {"Running": True, "Health": None},
    "Args": ["-a", "b"],
    "Labels": {"b": "2", "a.c": "1"},
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": [{"HostPort": "9090"}]},
    "Label": lambda name: f"label {name}",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}} {{ .State.Running }}", "/web true"),
        ("{{json .Labels}}", '{"b":"2","a.c":"1"}'),
        ("{{.Labels}} {{.Args}} {{.State.Health}}", "map[a.c:1 b:2] [-a b] <no value>"),
        ('{{index .Labels "a.c"}}{{index .Labels "none"}} {{index .Args 1}}', "1 b"),
        ('{{.Label "x"}}', "label x"),
        ("{{range .Args}}<{{.}}>{{end}}", "<-a><b>"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=-a 1=b "),
        ("{{range $p, $c := .Ports}}{{$p}}->{{(index $c 0).HostPort}} {{end}}", "80/tcp->8080 90/tcp->9090 "),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}},{{$.Name}};{{end}}", "a.c:1,/web;b:2,/web;"),
        ("{{range .State.Health}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Health}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
        ("{{with .State}}{{.Running}}{{end}}", "true"),
        ('{{if and (eq .Name "/web") (not .State.Health)}}yes{{end}}', "yes"),
        ('{{join .Args ","}} {{.Name | upper | printf "%-6s|"}}', "-a,b /WEB  |"),
        ('{{println (len .Args) "x"}}', "2 x\n"),
        ("a {{- /* what */ -}} b", "ab"),
        ("{{- .Name -}} \n x", "/webx"),
        ('{{truncate .Name 2}}{{"{{"}}', "/w{{"),
    ],
)
def test_a_template_says_what_go_would_say(template: str, text: str) -> None:
    """Fields, blocks, pipelines and functions."""
    assert render(template, _DOCUMENT) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{.Nmae}}", "no field 'Nmae'; there are Args"),
        ("{{.Name.First}}", "what should have a field 'First' is '/web'"),
        ("{{call .Label}}", "no function 'call'; there are and, eq"),
        ("{{define}}", "no function 'define'"),
        ("{{range .Args}}", "range without end"),
        ("{{end}}", "'end' has nothing to end"),
        ("{{.Name", "is not closed"),
        ("{{$x}}", "undefined variable"),
        ("{{index .Args 7}}", "index cannot be done"),
        ('{{.Name "x"}}', "takes no arguments"),
        ("{{(.Name}}", "a parenthesis is not closed"),
        ("{{.Name | }}", "a value is missing"),
        ("{{@}}", "'@' is not understood"),
    ],
)
def test_what_it_does_not_know_it_refuses(template: str, said: str) -> None:
    """By its name, and with what there is."""
    with pytest.raises(InvalidArgument, match=said.replace("(", r"\(").replace("$", r"\$")):
        render(template, _DOCUMENT)
