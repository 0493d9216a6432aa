"""An app on two devices: writes on one, reads on the other, and meets what can go wrong.

Usage: two_devices.py ENDPOINT TOKEN FOLDER
"""

import asyncio
import json
import sys
from pathlib import Path

from kairos import (
    ColumnSchema, ColumnType, EventListener, KairosChoice, KairosClient, KairosCommand, KairosCredentials, KairosError,
    KairosNetwork, KairosOptions, KairosSignOut, KairosState, RowsListener, Statement, StatusListener, TableSchema,
    TokenProvider, database_path, import_database,
)

ENDPOINT, TOKEN, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
PATIENCE = 30

TEXT, INTEGER = ColumnType.TEXT, ColumnType.INTEGER
TABLES = [
    TableSchema(name="habits", track_previous=True, indexes=[["name"]],
                columns=[ColumnSchema(name=name, kind=kind)
                         for name, kind in [("owner", TEXT), ("name", TEXT), ("done", INTEGER)]]),
    TableSchema(name="notes", columns=[ColumnSchema(name="body", kind=TEXT)]),
    TableSchema(name="drafts", local_only=True, columns=[ColumnSchema(name="body", kind=TEXT)]),
]


class Tokens(TokenProvider):
    asked = 0

    def credentials(self, expired):
        self.asked += 1
        return KairosCredentials(endpoint=ENDPOINT, token=TOKEN)


class Rows(RowsListener):
    seen = []

    def rows(self, json_text):
        self.seen = self.seen + [json.loads(json_text)]

    def failed(self, error):
        self.seen = self.seen + [error]


class Statuses(StatusListener):
    states = set()

    def changed(self, status):
        self.states = self.states | {status.state}


class Events(EventListener):
    happened_so_far = []

    def happened(self, event):
        self.happened_so_far = self.happened_so_far + [event]


async def until(what, ask):
    for _ in range(PATIENCE * 50):
        if ask():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited in vain until {what}")


async def rows(client, sql, *parameters):
    return json.loads(await client.query(sql, json.dumps(parameters)))


async def failure(call):
    try:
        await call
    except KairosError as error:
        return error.code
    raise AssertionError("it was to fail")


async def main():
    path = database_path(str(FOLDER), ENDPOINT, "ann")
    tokens = Tokens()
    phone = await KairosClient.open(path, TABLES, tokens, KairosOptions())
    tablet = await KairosClient.open(str(FOLDER / "tablet.db"), TABLES, Tokens(), KairosOptions())
    assert phone.status().state == KairosState.NOT_CONFIGURED

    # Offline: rows are there at once, and wait.
    await phone.execute("INSERT INTO habits (id, owner, name) VALUES (?1, 'ann', ?2)", json.dumps(["h1", "Read"]))
    await phone.transaction([
        Statement(sql="UPDATE habits SET done = ?1", parameters="[true]"),
        Statement(sql="INSERT INTO habits (id, owner, name) VALUES ('h2', 'ann', 'Swim')"),
    ])
    assert await rows(phone, "SELECT id, done FROM habits ORDER BY id") == [{"id": "h1", "done": 1}, {"id": "h2", "done": None}]
    assert phone.pending() == 3

    listener, statuses, events = Rows(), Statuses(), Events()
    watch = await tablet.watch("SELECT id FROM habits ORDER BY id", "", listener)
    status_watch, event_watch = tablet.watch_status(statuses), tablet.watch_events(events)
    phone.set_network(KairosNetwork.ABSENT)
    phone.connect()
    await until("the phone is offline", lambda: phone.status().state == KairosState.PENDING)
    assert tokens.asked == 0
    phone.set_network(KairosNetwork.UNMETERED)
    await tablet.perform(KairosCommand.START)
    assert await phone.wait_for_first_sync(PATIENCE)
    assert await phone.wait_until_synced(PATIENCE)
    all_rows = [{"id": "h0"}, {"id": "h1"}, {"id": "h2"}]
    await until("the tablet has all rows", lambda: listener.seen[-1:] == [all_rows])
    assert listener.seen[0] == [], "at once"
    assert await tablet.wait_until_synced(PATIENCE)
    await until("its listeners were told", lambda: KairosState.SYNCED in statuses.states and events.happened_so_far)

    # What is for others is refused, and told.
    await tablet.execute("UPDATE habits SET owner = 'bob' WHERE id = 'h2'", "")
    assert await tablet.wait_until_synced(PATIENCE)
    [rejected] = await tablet.rejected_writes()
    assert (rejected.table, rejected.row_id, json.loads(rejected.mine)) == ("habits", "h2", {"owner": "bob"})
    assert await tablet.resolve_rejected_write(rejected.id, KairosChoice.THEIRS, None)
    assert await tablet.rejected_writes() == []

    # A stream while it is needed.
    notes = await tablet.subscribe("notes", parameters=json.dumps({"book": "book-2"}), ttl_seconds=60)
    assert await notes.wait_for_first_sync(PATIENCE)
    assert await rows(tablet, "SELECT id, body FROM notes") == [{"id": "n2", "body": "Two"}]

    # A copy is a device of its own.
    archive, copy = str(FOLDER / "archive.db"), str(FOLDER / "copy.db")
    await phone.export_to(archive)
    await import_database(archive, copy)
    assert await failure(import_database(archive, copy)) == "CLIENT-0109"
    third = await KairosClient.open(copy, TABLES, Tokens(), KairosOptions())
    assert third.client_id() != phone.client_id()
    assert len(await rows(third, "SELECT id FROM habits")) == 3

    assert await failure(phone.execute("INSERT INTO nowhere VALUES (1)", "")) == "CLIENT-0101"
    assert await failure(phone.query("SELECT ?1", "[[1]]")) == "CLIENT-0114"
    diagnostics = await phone.diagnostics()
    assert json.loads(diagnostics)["state"] == "Synced" and "Read" not in diagnostics

    await phone.disconnect()
    await phone.execute("DELETE FROM habits WHERE id = 'h1'", "")
    assert await failure(phone.sign_out(KairosSignOut.DELETE_DATA)) == "CLIENT-0112"
    await phone.sign_out(KairosSignOut.DELETE_UNSENT_TOO)
    assert await rows(phone, "SELECT id FROM habits") == []
    for ended in (watch, status_watch, event_watch):
        ended.cancel()


asyncio.run(main())
