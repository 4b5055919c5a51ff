"""What the LevelDB datastore adds to LevelDB."""

import threading

from ipcs.store.leveldb import LevelDBDatastore


def logs(path):
    return list(path.glob("*.log"))


def test_a_synced_write_leaves_no_older_log_behind(tmp_path):
    """LevelDB would sync its new log only, and lose what it had not written to a table yet."""
    datastore = LevelDBDatastore(tmp_path / "db", write_buffer_size=64 << 10)
    for number in range(300):
        datastore.write([(b"%d" % number, bytes(1000))], sync=False)
        if number % 10 == 0:
            datastore.write([(b"synced", b"%d" % number)], sync=True)
            assert len(logs(tmp_path / "db")) == 1
    assert datastore.get(b"0") == bytes(1000)
    datastore.close()


def test_reads_go_on_while_it_is_opened_again(tmp_path):
    datastore = LevelDBDatastore(tmp_path / "db")
    datastore.write([(b"%d" % number, b"value") for number in range(100)], sync=True)
    failures, done = [], threading.Event()

    def read():
        while not done.is_set():
            if datastore.get_many([b"1", b"99", b"absent"]) != [b"value", b"value", None]:
                failures.append("wrong")
            if len(list(datastore.scan(b"1"))) != 11:
                failures.append("short")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        datastore._broken = True
        datastore.write([(b"absent?", b"%d" % number)], sync=False)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert datastore.get(b"absent?") == b"19"
    datastore.close()
