//! The folder of models: which versions are served, what is refused and why, and how a new one gets in.

use harness::{
    Connections, Database, Load, Models, Runtime, Service, eventually, shared, shipped_file, small_models, wire,
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn service(models: &Models) -> Service {
    Service::builder(Runtime::Aot).models(models.path()).start()
}

/// The versions of a model that are served, the newest first.
fn versions(service: &Service, name: &str) -> Vec<String> {
    let listed = service.get("/v1/models").expect(200);
    let model = listed["models"].as_array().unwrap().iter().find(|model| model["name"] == name).cloned();
    let versions = model.unwrap_or_else(|| panic!("no {name} in {listed}"))["versions"].take();
    serde_json::from_value(versions).unwrap()
}

/// Why a version is not served, which the log has to say as well.
fn reason(service: &Service, name: &str, version: &str) -> String {
    let status = service.get(&format!("/v1/models/{name}/versions/{version}")).expect(200);
    let status = &status["model_version_status"][0];
    assert_eq!((&status["state"], &status["version"]), (&json!("END"), &json!(version)), "{status}");
    assert_eq!(status["status"]["error_code"], "FAILED_PRECONDITION");
    let reason = status["status"]["error_message"].as_str().unwrap().to_owned();
    let said = service.log().lines().any(|line| {
        line.contains("cannot be loaded") && line.contains(name) && line.contains(version) && line.contains("ERROR")
    });
    assert!(said, "{}", service.log());
    reason
}

fn digits() -> String {
    json!({"instances": [vec![vec![[0.5]; 8]; 8]]}).to_string()
}

/// The version that answers where none is named.
fn newest(service: &Service, name: &str) -> Value {
    let input = json!({"name": "pixels", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": vec![0.5; 64]});
    let body = json!({ "inputs": [input] }).to_string();
    service.send_json("POST", &format!("/v2/models/{name}/infer"), &body).expect(200)["model_version"].clone()
}

// ---- Versions ----

#[test]
fn the_newest_two_versions_by_their_numbers_are_served() {
    let models = Models::new();
    for version in ["2", "9", "10", "08"] {
        models.copy_shipped("digits", version);
    }
    // Neither versions nor models.
    models.copy_shipped("digits", "v11");
    models.copy_shipped("digits", "12.1");
    models.copy_shipped("digits", "-13");
    models.copy_shipped(".hidden", "1");
    models.put("digits", "", "14", "a file");
    models.put("empty", "", "note", "no version");
    let service = service(&models);
    assert_eq!(versions(&service, "digits"), ["10", "9"]);
    assert_eq!(service.get("/v1/models").expect(200)["models"].as_array().unwrap().len(), 1);
    assert_eq!(newest(&service, "digits"), "10");
    for (version, status) in [("10", 200), ("9", 200), ("8", 404), ("2", 404), ("11", 404), ("14", 404)] {
        let path = format!("/v1/models/digits/versions/{version}:predict");
        assert_eq!(service.send_json("POST", &path, &digits()).status, status, "{version}");
    }
    let metadata = service.get("/v2/models/digits").expect(200);
    assert_eq!(metadata["versions"], json!(["10", "9"]));
}

#[test]
fn a_broken_version_is_told_and_an_older_one_is_served() {
    let models = Models::new();
    for version in ["1", "2", "3"] {
        models.copy_shipped("digits", version);
    }
    models.put("digits", "10", "model.tflite", "no model");
    models.put("digits", "4", "notes.txt", "nothing yet");
    models.put("broken", "1", "model.tflite", [0; 100]);
    let service = service(&models);
    assert_eq!(versions(&service, "digits"), ["3", "2"]);
    assert_eq!(newest(&service, "digits"), "3");
    assert!(reason(&service, "digits", "10").contains("it is not a TensorFlow Lite model"));
    assert_eq!(reason(&service, "digits", "4"), "it has no .tflite file");
    let states = service.get("/v1/models/digits").expect(200);
    let states: Vec<_> = states["model_version_status"].as_array().unwrap().iter().map(|of| &of["state"]).collect();
    assert_eq!(states, ["END", "END", "AVAILABLE", "AVAILABLE"], "the newest first");
    assert_eq!(versions(&service, "broken"), [""; 0]);
    let said = service.send_json("POST", "/v1/models/broken:predict", "{}").inference_error(404);
    assert!(said.contains("GET /v1/models/broken"), "{said}");
    assert_eq!(service.get("/v2/models/broken/ready").status, 404);
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn a_service_that_requires_its_models_says_which_one_is_missing() {
    let models = Models::new();
    models.copy_shipped("digits", "1");
    models.put("broken", "1", "model.tflite", [0; 100]);
    let service = Service::builder(Runtime::Aot).models(models.path()).env("REQUIRE_MODELS", 1).start();
    let (_, detail) = service.get("/readyz").problem(503);
    assert!(detail.contains("no version of \"broken\" is loaded"), "{detail}");
    assert_eq!(service.get("/v2/health/ready").status, 503);
    assert_eq!(newest(&service, "digits"), "1");
}

// ---- What a folder has ----

#[test]
fn a_manifest_that_does_not_fit_keeps_its_model_out() {
    let models = Models::new();
    let set = |pointer: &'static str, value: Value| {
        move |manifest: &mut Value| *manifest.pointer_mut(pointer).unwrap() = value
    };
    models.copy_changed("digits", "1", set("/size", json!(53_000)));
    models.copy_changed("digits", "2", set("/sha256", json!("0".repeat(64))));
    models.copy_changed("digits", "3", set("/inputs/0/dtype", json!("INT8")));
    models.copy_changed("digits", "4", set("/outputs/0/shape", json!([-1, 11])));
    models.copy_changed("digits", "5", set("/file", json!("other.tflite")));
    models.copy_changed("digits", "6", set("/file", json!("../1/model.tflite")));
    models.copy_changed("digits", "7", set("/format", json!("saved_model")));
    models.copy_changed("digits", "8", set("/inputs/0/tensor", json!("other:0")));
    models.copy_changed("digits", "9", set("/inputs", json!([])));
    models.put("digits", "10", "manifest.json", "{");
    let mut damaged = shipped_file("digits", "model.tflite");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    models.copy_shipped("digits", "11");
    models.put("digits", "11", "model.tflite", damaged);
    let service = service(&models);
    assert_eq!(versions(&service, "digits"), [""; 0]);
    for (version, what) in [
        ("1", "has 53796 bytes, not 53000"),
        ("2", "SHA-256"),
        ("3", "\"INT8\", but the model has FP32"),
        ("4", "[-1, 11], but the model has [-1, 10]"),
        ("5", "other.tflite cannot be read"),
        ("6", "it must be a name in the same folder"),
        ("7", "only \"tflite\" is served"),
        ("8", "no such tensor \"other:0\""),
        ("9", "the model has 1 tensors there, not 0"),
        ("10", "manifest.json: EOF"),
        ("11", "model.tflite is damaged: its SHA-256"),
    ] {
        let reason = reason(&service, "digits", version);
        assert!(reason.contains(what), "{version}: {reason}");
    }
}

#[test]
fn a_model_without_a_manifest_is_known_by_what_its_file_says() {
    let models = Models::new();
    models.put("plain", "1", "mnist.tflite", shipped_file("digits", "model.tflite"));
    models.put("two", "1", "model.tflite", shipped_file("diabetes", "model.tflite"));
    models.put("two", "1", "other.tflite", "another");
    models.copy(&small_models().join("no-signature/1"), "no-signature", "1");
    let service = service(&models);
    let described = |name: &str| {
        let metadata = service.get(&format!("/v2/models/{name}")).expect(200);
        json!([metadata["inputs"], metadata["outputs"]])
    };
    let tensor = |name: &str, shape: &[i64]| json!({"name": name, "datatype": "FP32", "shape": shape});
    assert_eq!(described("plain"), json!([[tensor("pixels", &[-1, 8, 8, 1])], [tensor("probabilities", &[-1, 10])]]));
    assert_eq!(described("no-signature"), json!([[tensor("x", &[-1, 2])], [tensor("Identity", &[-1, 2])]]));
    assert_eq!(described("two")[0].as_array().unwrap().len(), 2);
    assert_eq!(newest(&service, "plain"), "1");
}

#[test]
fn what_cannot_be_served_says_what_to_do() {
    let models = Models::new();
    models.put("saved", "1", "saved_model.pb", "a graph");
    models.put("saved", "1", "fingerprint.pb", "");
    models.put("several", "1", "a.tflite", shipped_file("digits", "model.tflite"));
    models.put("several", "1", "b.tflite", shipped_file("digits", "model.tflite"));
    models.copy(&small_models().join("custom-op/1"), "custom-op", "1");
    models.put("text", "1", "model.tflite", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n");
    let service = service(&models);
    for (name, what) in [
        ("saved", "convert it with TensorFlow's TFLiteConverter to model.tflite"),
        ("several", "several .tflite files, none of them called model.tflite"),
        ("custom-op", "an operation that TensorFlow Lite does not have"),
        ("text", "it is not a TensorFlow Lite model"),
    ] {
        assert_eq!(versions(&service, name), [""; 0]);
        let reason = reason(&service, name, "1");
        assert!(reason.contains(what), "{name}: {reason}");
    }
    service.add_user("Ada", "ada@x.org");
}

#[test]
fn a_model_that_is_only_half_there_is_not_served() {
    let models = Models::new();
    models.copy_shipped("digits", "1");
    let whole = shipped_file("digits", "model.tflite");
    let mut version = 1;
    let mut put = |size: usize, with_manifest: bool| {
        version += 1;
        models.put("digits", &version.to_string(), "model.tflite", &whole[..size]);
        if with_manifest {
            models.put("digits", &version.to_string(), "manifest.json", shipped_file("digits", "manifest.json"));
        }
    };
    let sizes = [0, 4, 100, 4096, whole.len() / 2, whole.len() * 9 / 10, whole.len() - 1024, whole.len() - 64];
    sizes.iter().for_each(|size| put(*size, false));
    [0, whole.len() / 2, whole.len() - 1].iter().for_each(|size| put(*size, true));
    let service = service(&models);
    assert_eq!(versions(&service, "digits"), ["1"], "{}", service.get("/v1/models/digits").body);
    for number in 2..=version {
        assert!(!reason(&service, "digits", &number.to_string()).is_empty());
    }
    assert_eq!(newest(&service, "digits"), "1");
}

// ---- Reload ----

#[test]
fn a_reload_serves_a_new_version_and_loses_no_request() {
    let models = Models::new();
    models.copy_shipped("digits", "1");
    let database = Database::start();
    let service = shared(2, &database).models(models.path()).start();
    service.ready_workers(2);
    let predict = String::from_utf8(wire::request("POST", "/v1/models/digits:predict", &[], digits())).unwrap();
    let users = String::from_utf8(wire::get("/api/users")).unwrap();
    let requests = [predict.clone(), predict, users];
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::of(&requests, service.address(), 4, kind));
    loads.iter().for_each(|load| load.answers(20));
    models.copy_shipped("digits", "2");
    // Of no use, and no reason not to reload.
    models.put("digits", "3", "model.tflite", "half");
    service.signal(Signal::HUP);
    eventually("both workers have the new version", || {
        assert!(!service.log().contains("not reloaded"), "{}", service.log());
        service.log().contains("usher: reloaded in ").then_some(())
    });
    loads.iter().for_each(|load| load.answers(20));
    for tally in loads.map(Load::finish) {
        assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
    }
    for _ in 0..10 {
        assert_eq!(newest(&service, "digits"), "2");
        assert_eq!(versions(&service, "digits"), ["2", "1"]);
    }
}
