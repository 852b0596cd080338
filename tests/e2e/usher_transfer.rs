//! usher's own `sock_recv` and `sock_send`, as a guest meets them.

use harness::{Runtime, Service, make_module};

#[test]
fn a_guest_gets_what_was_sent_and_for_each_fault_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let module = make_module("transfers", folder.path());
    let ended = Service::builder(Runtime::Usher).module(&module).arg("--workers=1").arg("--interpret").run();
    // Its first connection, and then what the module's comments say, with errors as WASI preview 1 numbers
    // them: 6 again, 8 badf, 21 fault, 28 inval, 57 notsock, 64 pipe.
    let expected = [
        "00",
        "00 05 00 03 00 00 05 00 hello",
        "06 28 28 28 08 57 21 21",
        "00 02 21 00 02 00",
        "00 00 00 00 02 64 08",
        "00 00 05 00 03 01",
    ];
    let told: Vec<&str> = ended.stderr.lines().map(str::trim_end).take(expected.len()).collect();
    assert_eq!(told, expected, "{}", ended.stderr);
}
