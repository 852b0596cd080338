//! Models as clients ask for them that others wrote, and whether the answers are right.

use harness::{Database, Runtime, Service, client, shared, shipped_models};

/// Runs a client to its end.
fn is_served(script: &str, service: &Service) {
    let output = client(script).arg(service.address().to_string()).arg(shipped_models()).output().unwrap();
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{said}");
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("ok: "), "it checks nothing: {said}");
}

/// By the WasmEdge CLI, or by two workers of usher.
fn client_of(script: &str, runtime: Runtime) {
    if runtime == Runtime::Usher {
        let database = Database::start();
        let service = shared(2, &database).models(&shipped_models()).start();
        service.ready_workers(2);
        is_served(script, &service);
        assert!(service.workers().iter().all(|worker| worker.restarts == 0), "{:?}", service.workers());
    } else {
        is_served(script, &Service::builder(runtime).models(&shipped_models()).watched(true).start());
    }
}

fn a_client_of_triton(runtime: Runtime) {
    client_of("open_inference.py", runtime);
}

fn a_client_of_tensorflow_serving(runtime: Runtime) {
    client_of("serving.py", runtime);
}

fn answers_are_those_of_tensorflow_lite(runtime: Runtime) {
    client_of("agreement.py", runtime);
}

fn digits_that_no_model_knows_are_classified(runtime: Runtime) {
    client_of("accuracy.py", runtime);
}

on_every_runtime!(
    compiled, Aot: a_client_of_triton, a_client_of_tensorflow_serving, answers_are_those_of_tensorflow_lite,
    digits_that_no_model_knows_are_classified
);
on_every_runtime!(
    by_usher, Usher: a_client_of_triton, a_client_of_tensorflow_serving, answers_are_those_of_tensorflow_lite,
    digits_that_no_model_knows_are_classified
);
