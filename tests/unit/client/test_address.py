"""Finding a node by its data folder and the environment."""

from __future__ import annotations

from pathlib import Path

from headrace.client.address import NodeFile, client_address, read_note, write_note


def test_a_node_is_found_by_the_note_in_its_data_folder(tmp_path: Path) -> None:
    assert read_note(tmp_path) is None
    (tmp_path / "node.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    assert client_address(None, {}, tmp_path).url == "http://127.0.0.1:9"
    assert client_address(None, {"HEADRACE_URL": "http://x.test"}, tmp_path).url == "http://x.test"
    (tmp_path / "node.json").write_text("half a no")
    assert client_address(None, {}, tmp_path).url == "http://127.0.0.1:4280"


def test_a_reader_of_the_nodes_address_sees_all_of_it_or_nothing(tmp_path: Path) -> None:
    with write_note(tmp_path, NodeFile("http://127.0.0.1:1")).open() as being_read:
        write_note(tmp_path, NodeFile("http://127.0.0.1:2"))
        assert "http://127.0.0.1:1" in being_read.read()
    assert read_note(tmp_path) == NodeFile("http://127.0.0.1:2")
    assert [path.name for path in tmp_path.iterdir()] == ["node.json"]


def test_commands_talk_to_the_port_of_the_api(tmp_path: Path) -> None:
    write_note(tmp_path, NodeFile("http://127.0.0.1:1", api_url="http://127.0.0.1:2"))
    assert client_address(environ={}, data=tmp_path).url == "http://127.0.0.1:2"
    write_note(tmp_path, NodeFile("http://127.0.0.1:1"))
    assert client_address(environ={}, data=tmp_path).url == "http://127.0.0.1:1"
