//! What a client can get wrong in a request for a model, and what it may do although it looks wrong: each has its
//! answer, none does harm. Every service is asked for `/livez` all the time.

use std::io::Write;

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compress, Compression, FlushCompress};
use harness::{Models, Raw, Reply, Runtime, Service, none_wrong, proportional_anonymous_kib, wire};
use serde_json::{Map, Value, json};

/// Largest body there may be, decoded.
const BODY_MAX: usize = 8 << 20;

/// How many bytes of a body are JSON.
const JSON_LENGTH: &str = "Inference-Header-Content-Length";

/// A model that doubles its only input `x`, FP32 of shape [-1, 2]; see `models/test_models.py`, as for the others.
const DOUBLES: &str = "no-signature";
/// What that one calls its output.
const DOUBLED: &str = "Identity";

/// A service with all models, which is alive throughout and serves users afterwards.
struct Api {
    service: Service,
    _models: Models,
}

fn api(test: impl FnOnce(&Api)) {
    let models = Models::all();
    let service = Service::builder(Runtime::Aot).models(models.path()).watched(true).start();
    let api = Api { service, _models: models };
    test(&api);
    api.service.add_user("Ada", "ada@x.org");
    assert_eq!(api.infer(DOUBLES, one_row("[1,2]")).expect(200)["outputs"][0]["data"], json!([2.0, 4.0]));
}

impl Api {
    fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        self.service.connect().request(request).unwrap()
    }

    fn post(&self, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        self.send(wire::request("POST", target, headers, body))
    }

    fn predict(&self, model: &str, body: impl AsRef<[u8]>) -> Reply {
        self.post(&format!("/v1/models/{model}:predict"), &[], body)
    }

    fn infer(&self, model: &str, body: impl AsRef<[u8]>) -> Reply {
        self.post(&infer_path(model), &[], body)
    }

    /// Sends JSON and the bytes after it; gives the JSON of the answer and the bytes after that.
    fn infer_binary(&self, model: &str, head: &Value, bytes: &[u8]) -> (Value, Vec<u8>) {
        let (reply, body) = self.service.connect().request_bytes(binary(model, head, bytes)).unwrap();
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&body));
        let length = reply.header("inference-header-content-length").map_or(body.len(), |text| text.parse().unwrap());
        let (head, bytes) = body.split_at(length);
        (serde_json::from_slice(head).unwrap(), bytes.to_vec())
    }
}

fn infer_path(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

fn binary(model: &str, head: &Value, bytes: &[u8]) -> Vec<u8> {
    let head = head.to_string();
    let length = head.len().to_string();
    wire::request("POST", &infer_path(model), &[(JSON_LENGTH, &length)], [head.as_bytes(), bytes].concat())
}

/// A request for `DOUBLES` with one row, whose data are this JSON.
fn one_row(data: &str) -> String {
    format!("{{\"inputs\":[{}]}}", x("[1,2]", &format!("\"data\":{data}")))
}

/// Its input with this shape, and the rest as given.
fn x(shape: &str, rest: &str) -> String {
    format!("{{\"name\":\"x\",\"shape\":{shape},\"datatype\":\"FP32\",{rest}}}")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bytes_of(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// What is wrong with an answer that should be a refusal of this status, in the form of the protocols.
fn no_refusal(reply: &Reply, status: u16) -> Option<String> {
    let told = || {
        let document: Value = serde_json::from_str(&reply.body).ok()?;
        let members = document.as_object()?;
        (members.len() == 1).then(|| members.get("error")?.as_str().map(str::to_owned)).flatten()
    };
    let is_told = told().is_some_and(|error| !error.is_empty());
    (reply.status != status || !is_told).then(|| format!("{} instead of {status}: {}", reply.status, reply.body))
}

fn assert_all_refused<'a>(api: &Api, rows: impl IntoIterator<Item = (&'a str, String, u16)>) {
    none_wrong(rows, |(path, body, status)| {
        let reply = api.post(path, &[], &body);
        let shown: String = body.chars().take(120).collect();
        no_refusal(&reply, status).map(|wrong| format!("{path} {shown}: {wrong}"))
    });
}

// ---- Numbers that JSON does not have ----

fn person(value: &str) -> String {
    format!("{{\"instances\":[{{\"person\":[{value},1,26,95],\"serum\":[189,115,50,4,4.6,91]}}]}}")
}

#[test]
fn numbers_that_are_not_finite_are_tokens_for_predict_only() {
    api(|api| {
        for token in ["NaN", "Infinity", "-Infinity"] {
            let reply = api.predict("diabetes", person(token));
            assert_eq!(reply.status, 200, "{reply:?}");
            let tokens = ["\"progression\":[NaN]", "\"progression\":[Infinity]", "\"progression\":[-Infinity]"];
            assert!(tokens.iter().any(|token| reply.body.contains(token)), "{token}: {reply:?}");
        }
        let others =
            ["nan", "NAN", "Inf", "inf", "-inf", "infinity", "+Infinity", "-NaN", "\"NaN\"", "NaN0", "1.", "+1"];
        let rows = others.map(|other| ("/v1/models/diabetes:predict", person(other), 400));
        assert_all_refused(api, rows);
        let tokens = ["NaN", "Infinity", "-Infinity", "\"NaN\"", "nan", "1e39"];
        let path = infer_path(DOUBLES);
        assert_all_refused(api, tokens.map(|token| (path.as_str(), one_row(&format!("[1,{token}]")), 400)));
    });
}

#[test]
fn numbers_that_are_not_finite_go_through_as_bytes_and_not_as_json() {
    api(|api| {
        // A NaN with a message, and one whose first bit is set.
        let bits = [0x7fc1_2345, 0xffc0_0001, 0x7f80_0000, 0xff80_0000_u32];
        let sent: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let head = json!({
            "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
            "parameters": {"binary_data_output": true},
        });
        let (_, came) = api.infer_binary(DOUBLES, &head, &sent);
        let came = floats(&came);
        assert!(came[0].is_nan() && came[1].is_nan(), "{came:?}");
        assert_eq!(came[2..], [f32::INFINITY, f32::NEG_INFINITY]);
        let as_json = json!({ "inputs": head["inputs"] });
        let said = api.send(binary(DOUBLES, &as_json, &sent)).inference_error(400);
        assert!(said.contains("binary"), "{said}");
        // Finite there, and not any more when it is doubled.
        let said = api.infer(DOUBLES, one_row("[3e38,1]")).inference_error(400);
        assert!(said.contains("binary"), "{said}");
        let reply = api.predict(DOUBLES, "{\"instances\":[[3e38,1]]}");
        assert_eq!((reply.status, reply.body.as_str()), (200, "{\"predictions\":[[Infinity,2.0]]}"));
    });
}

// ---- Compressed bodies ----

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A mebibyte of zeros, deflated so that it can be repeated.
fn mebibyte_of_zeros() -> Vec<u8> {
    let mut deflated = Vec::with_capacity(1 << 16);
    Compress::new(Compression::best(), false)
        .compress_vec(&vec![0; 1 << 20], &mut deflated, FlushCompress::Full)
        .unwrap();
    deflated
}

/// A gzip stream of about a megabyte that becomes 1 GiB.
fn exploding() -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&head[..], &mebibyte_of_zeros().repeat(1024)].concat()
}

#[test]
fn compressed_bodies_are_decoded_within_the_bound_or_refused_with_what_would_do() {
    api(|api| {
        let rows = "{\"instances\":[[1,2]]}".as_bytes();
        let predict = format!("/v1/models/{DOUBLES}:predict");
        let (start, end) = rows.split_at(9);
        let in_members = [gzip(start), gzip(end)].concat();
        for (coding, body) in
            [("gzip", gzip(rows)), ("x-gzip", gzip(rows)), ("deflate", deflate(rows)), ("gzip", in_members)]
        {
            let reply = api.post(&predict, &[("Content-Encoding", coding), ("Accept-Encoding", "gzip")], body);
            assert_eq!(reply.expect(200), json!({"predictions": [[2.0, 4.0]]}), "{coding}");
            assert_eq!(reply.header("content-encoding"), None);
        }
        for coding in ["br", "zstd", "gzip, gzip", "compress"] {
            for path in [&predict, &infer_path(DOUBLES)] {
                let reply = api.post(path, &[("Content-Encoding", coding)], gzip(rows));
                assert_eq!(no_refusal(&reply, 415), None, "{coding}");
                assert_eq!(reply.header("accept-encoding"), Some("gzip, deflate, identity"), "{coding}");
            }
        }
        let damaged = [gzip(rows)[..20].to_vec(), rows.to_vec(), b"\x1f\x8b".to_vec(), deflate(rows)];
        for body in damaged {
            assert_eq!(no_refusal(&api.post(&predict, &[("Content-Encoding", "gzip")], &body), 400), None, "{body:?}");
        }
        let users =
            api.post("/api/users", &[("Content-Encoding", "gzip"), ("Content-Type", "application/json")], gzip(b"{}"));
        assert_eq!(users.problem(415).0, "unsupported-media-type");
        assert_eq!(users.header("accept-encoding"), Some("identity"));
    });
}

#[test]
fn where_the_json_ends_is_said_of_the_decoded_body() {
    api(|api| {
        let head = one_row("[1,2]").replace("\"data\":[1,2]", "\"parameters\":{\"binary_data_size\":8}");
        let body = gzip(&[head.as_bytes(), &bytes_of(&[1.5, 2.5])].concat());
        let length = head.len().to_string();
        let headers = [("Content-Encoding", "gzip"), (JSON_LENGTH, &length)];
        let outputs = api.post(&infer_path(DOUBLES), &headers, body).expect(200);
        assert_eq!(outputs["outputs"][0]["data"], json!([3.0, 5.0]));
    });
}

#[test]
fn a_body_that_explodes_is_refused_and_takes_no_memory() {
    api(|api| {
        let bomb = exploding();
        assert!(bomb.len() < BODY_MAX / 4, "{}", bomb.len());
        let explode = || {
            for path in [format!("/v1/models/{DOUBLES}:predict"), infer_path(DOUBLES)] {
                let reply = api.post(&path, &[("Content-Encoding", "gzip")], &bomb);
                assert_eq!(no_refusal(&reply, 413), None);
            }
            let reply = api.post("/api/classify?model=digits", &[("Content-Encoding", "gzip")], &bomb);
            assert_eq!(reply.problem(413).0, "body-too-large");
            proportional_anonymous_kib(api.service.pid())
        };
        // The first round is for what is made once and kept: no more than a body, coded and decoded.
        let at_start = proportional_anonymous_kib(api.service.pid());
        let before = explode();
        let after = (0..5).map(|_| explode()).max().unwrap();
        println!("{at_start} KiB, {before} after the first round, {after} at most later");
        assert!(before < at_start + (40 << 10), "{at_start}, then {before} KiB");
        assert!(after < before + (12 << 10), "{before}, then {after} KiB");
    });
}

// ---- The Open Inference Protocol ----

/// A body, of which so much is JSON if that is said, and what is wrong about it.
type Malformed = (&'static str, Option<String>, Vec<u8>);

fn malformed_binary_bodies() -> Vec<Malformed> {
    let bytes = [1_u8; 8];
    let head = |size: &str| {
        format!("{{\"inputs\":[{}]}}", x("[1,2]", &format!("\"parameters\":{{\"binary_data_size\":{size}}}")))
    };
    let body = |head: &str, bytes: &[u8]| [head.as_bytes(), bytes].concat();
    let right = head("8");
    let length = |head: &str| Some(head.len().to_string());
    let mut cases: Vec<Malformed> = vec![
        ("bytes without the header", None, body(&right, &bytes)),
        ("a JSON of no length", Some("0".into()), body(&right, &bytes)),
        ("a negative length", Some("-1".into()), body(&right, &bytes)),
        ("a length in words", Some("ten".into()), body(&right, &bytes)),
        ("a length with a sign", Some(format!("+{}", right.len())), body(&right, &bytes)),
        ("two lengths", Some(format!("{0}, {0}", right.len())), body(&right, &bytes)),
        ("a length beyond 64 bits", Some("99999999999999999999".into()), body(&right, &bytes)),
        ("a length beyond the body", Some((right.len() + 9).to_string()), body(&right, &bytes)),
        ("a length that is one short", Some((right.len() - 1).to_string()), body(&right, &bytes)),
        ("fewer bytes than are said", length(&right), body(&right, &bytes[1..])),
        ("more bytes than are said", length(&right), body(&right, &[1; 9])),
        ("no bytes at all", length(&right), body(&right, &[])),
    ];
    for size in ["7", "9", "0", "16", "-8", "8.0", "\"8\"", "9223372036854775808", "18446744073709551616", "[8]"] {
        cases.push(("a size that does not fit", length(&head(size)), body(&head(size), &bytes)));
    }
    let both = format!("{{\"inputs\":[{}]}}", x("[1,2]", "\"data\":[1,2],\"parameters\":{\"binary_data_size\":8}"));
    cases.push(("data and bytes", length(&both), body(&both, &bytes)));
    let cut = format!("{{\"id\":\"é\",{}", &right[1..]);
    let inside = cut.find('é').unwrap() + 1;
    cases.push(("a length inside of a character", Some(inside.to_string()), body(&cut, &bytes)));
    cases
}

/// Shapes that are none, or none for two numbers in rows of two.
const WRONG_SHAPES: [&str; 18] = [
    r#""-1""#,
    "[-1]",
    "[-1,2]",
    "[1099511627776,1099511627776]",
    "[]",
    "[0]",
    "[0,2]",
    "[2]",
    "[1,3]",
    "[2,1]",
    "[1,1,2]",
    "[1.0,2]",
    r#"["1",2]"#,
    "null",
    "1",
    "[4294967297,2]",
    "[18446744073709551616,2]",
    "[[1,2]]",
];

/// Data that are none, or none for the shape [1, 2].
const WRONG_DATA: [&str; 20] = [
    r#"{"b64":"AACAPwAAAEA="}"#,
    "[]",
    "[1]",
    "[1,2,3]",
    "[[1,2],[3,4]]",
    "[[1],[2]]",
    "[[1,2,3]]",
    "[[[1,2]]]",
    "[[1,2]",
    r#"["1","2"]"#,
    "[true,false]",
    "[null,1]",
    r#""1,2""#,
    "1",
    "null",
    "[1,2.]",
    "[1,NaN]",
    "[1,0x2]",
    r#"[{"b64":"AACAPw=="},1]"#,
    "[1,[2]]",
];

fn malformed_json_bodies() -> Vec<String> {
    let data = "\"data\":[1,2]";
    let right = x("[1,2]", data);
    let mut inputs: Vec<String> = WRONG_SHAPES.iter().map(|shape| x(shape, data)).collect();
    inputs.extend(WRONG_DATA.iter().map(|data| x("[1,2]", &format!("\"data\":{data}"))));
    inputs.extend(["\"y\"", "1", "\"\""].map(|name| right.replace("\"x\"", name)));
    inputs.extend(["FP64", "fp32", "BYTES", "FP31"].map(|datatype| right.replace("FP32", datatype)));
    inputs.extend([format!("{right},{right}"), x("[1,2]", "\"parameters\":{}")]);
    inputs.extend(["", "1", "[]"].map(str::to_owned));
    inputs.push(x("[1,2]", &format!("\"data\":{}", "[".repeat(100_000))));
    let mut bodies: Vec<String> = inputs.iter().map(|inputs| format!("{{\"inputs\":[{inputs}]}}")).collect();
    let outputs = [
        r#"[{"name":"y"}]"#,
        r#"[{"name":"Identity"},{"name":"Identity"}]"#,
        r#"[{"name":"Identity","parameters":{"classification":2}}]"#,
        r#"[{"name":"Identity","parameters":{"binary_data":1}}]"#,
        "[{}]",
        "[1]",
        r#""Identity""#,
    ];
    bodies.extend(outputs.iter().map(|outputs| format!("{{\"inputs\":[{right}],\"outputs\":{outputs}}}")));
    let others = [r#""id":1"#, r#""parameters":[1]"#, r#""inputs":[]"#];
    bodies.extend(others.iter().map(|other| format!("{{{other},\"inputs\":[{right}]}}")));
    bodies.extend(["", " ", "{", "[]", "null", "{}", r#"{"inputs":null}"#, r#"{"inputs":{}}"#].map(str::to_owned));
    bodies.push("[".repeat(100_000));
    bodies
}

#[test]
fn malformed_requests_of_the_open_inference_protocol_are_refused() {
    api(|api| {
        let path = infer_path(DOUBLES);
        none_wrong(malformed_binary_bodies(), |(what, length, body)| {
            let header = length.as_deref().map(|length| (JSON_LENGTH, length));
            let reply = api.post(&path, header.as_slice(), &body);
            let shown = String::from_utf8_lossy(&body).into_owned();
            no_refusal(&reply, 400).map(|wrong| format!("{what}, {length:?}, {shown}: {wrong}"))
        });
        assert_all_refused(api, malformed_json_bodies().into_iter().map(|body| (path.as_str(), body, 400)));
        let halves = |shape, data| json!({"name": "float16", "shape": shape, "datatype": "FP16", "data": data});
        let wide = json!({"name": "float64", "shape": [1, 2], "datatype": "FP64", "data": [1.5, 2.5]});
        let body = json!({"inputs": [halves([1, 2], [1.5, 2.5]), wide]}).to_string();
        let said = api.infer("wide-and-narrow", body).inference_error(400);
        assert!(said.contains("FP16") && said.contains("binary"), "{said}");
    });
}

#[test]
fn each_output_comes_in_its_form_and_only_those_that_are_asked_for() {
    api(|api| {
        let input = |name: &str, count: usize| json!({"name": name, "shape": [2, count], "datatype": "FP32", "data": vec![50.5; count * 2]});
        let ask = |outputs: Value| {
            let inputs = [input("serum", 6), input("person", 4)];
            api.infer_binary("diabetes", &json!({"id": "a \"b\" é", "inputs": inputs, "outputs": outputs}), &[])
        };
        let (all, _) = ask(json!([]));
        assert_eq!(
            (&all["id"], &all["model_name"], &all["model_version"]),
            (&json!("a \"b\" é"), &json!("diabetes"), &json!("1"))
        );
        let names = |head: &Value| -> Vec<String> {
            head["outputs"].as_array().unwrap().iter().map(|output| output["name"].as_str().unwrap().into()).collect()
        };
        assert_eq!(names(&all), ["progression", "quartiles"]);
        let (one, bytes) = ask(json!([
            {"name": "quartiles", "parameters": {"binary_data": true}},
            {"name": "progression", "parameters": {"binary_data": false}},
        ]));
        assert_eq!(names(&one), ["quartiles", "progression"]);
        assert_eq!(one["outputs"][0]["parameters"], json!({"binary_data_size": 32}));
        assert_eq!(one["outputs"][1], all["outputs"][0]);
        let quartiles = all["outputs"][1]["data"].as_array().unwrap();
        let quartiles: Vec<f32> = quartiles.iter().map(|number| number.as_f64().unwrap() as f32).collect();
        assert_eq!(floats(&bytes), quartiles);
        assert_eq!(names(&ask(json!([{"name": "quartiles"}])).0), ["quartiles"]);
    });
}

#[test]
fn data_may_be_nested_flat_or_bytes() {
    api(|api| {
        let input = |rest: Value| {
            let mut input = json!({"name": "x", "shape": [2, 2], "datatype": "FP32"});
            input.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            json!({ "inputs": [input] })
        };
        let ask = |input: Value, bytes: &[u8]| api.infer_binary(DOUBLES, &input, bytes).0["outputs"].clone();
        let flat = ask(input(json!({"data": [1, 2.5, -0.0, 4e-3]})), &[]);
        assert_eq!(
            flat,
            json!([{"name": DOUBLED, "datatype": "FP32", "shape": [2, 2], "data": [2.0, 5.0, -0.0, 8e-3]}])
        );
        assert_eq!(ask(input(json!({"data": [[1, 2.5], [-0.0, 4e-3]]})), &[]), flat);
        let bytes = bytes_of(&[1.0, 2.5, -0.0, 4e-3]);
        assert_eq!(ask(input(json!({"parameters": {"binary_data_size": 16}})), &bytes), flat);
    });
}

// ---- Numbers through JSON ----

/// The inputs of the model `types`, which gives them back from the end to the beginning.
const TYPES: [(&str, &str); 6] = [
    ("float32", "FP32"),
    ("int16", "INT16"),
    ("int32", "INT32"),
    ("int64", "INT64"),
    ("uint8", "UINT8"),
    ("bool", "BOOL"),
];

/// Numbers that were written wrong elsewhere, then many whose bits are of no kind; all finite, also when doubled.
fn telling_floats() -> Vec<f32> {
    let mut numbers = vec![
        1e-8,
        9e-7,
        1e6,
        1e7,
        16_777_216.0,
        16_777_217.0,
        1e20,
        1.5e38,
        0.0,
        -0.0,
        1.0,
        -1.0,
        255.0,
        0.96,
        0.1,
        1e-7,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE / 2.0,
        f32::from_bits(1),
        -f32::from_bits(3),
        f32::EPSILON,
        1e5,
    ];
    let mut state = 8_u32;
    while numbers.len() < 6000 {
        // The constants of Numerical Recipes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        numbers.push(f32::from_bits(state));
        numbers.retain(|number| (number * 2.0).is_finite());
    }
    numbers
}

/// The numbers of a flat or nested array, as a client in single precision has them.
fn bits(value: &Value) -> Vec<u32> {
    match value {
        Value::Array(values) => values.iter().flat_map(bits).collect(),
        number => vec![(number.as_f64().unwrap() as f32).to_bits()],
    }
}

#[test]
fn every_number_comes_back_to_the_bit() {
    api(|api| {
        let numbers = telling_floats();
        let rows: Vec<&[f32]> = numbers.chunks(3).collect();
        let turned: Vec<u32> = rows.iter().flat_map(|row| row.iter().rev().map(|number| number.to_bits())).collect();
        let sent = |name: &str| match name {
            "float32" => json!(rows),
            "bool" => json!(vec![[false; 3]; rows.len()]),
            _ => json!(vec![[0; 3]; rows.len()]),
        };
        let columns: Map<String, Value> = TYPES.iter().map(|(name, _)| ((*name).to_owned(), sent(name))).collect();
        let outputs = api.predict("types", json!({ "inputs": columns }).to_string()).expect(200);
        assert_eq!(bits(&outputs["outputs"]["float32"]), turned);
        let input = |(name, datatype): &(&str, &str)| json!({"name": name, "shape": [rows.len(), 3], "datatype": datatype, "data": sent(name)});
        let inputs: Vec<Value> = TYPES.iter().map(input).collect();
        let body = json!({"inputs": inputs, "outputs": [{"name": "float32"}]});
        let inferred = api.infer("types", body.to_string()).expect(200);
        assert_eq!(bits(&inferred["outputs"][0]["data"]), turned);
    });
}

#[test]
fn results_come_as_they_were_computed() {
    api(|api| {
        // TensorFlow Lite takes those that are not normal for zeros when it computes.
        let numbers: Vec<f32> = telling_floats().into_iter().filter(|number| number.is_normal()).collect();
        let (rows, _) = numbers.as_chunks::<2>();
        let doubled: Vec<u32> = rows.iter().flatten().map(|number| (number * 2.0).to_bits()).collect();
        let predictions = api.predict(DOUBLES, json!({ "instances": rows }).to_string()).expect(200);
        assert_eq!(bits(&predictions["predictions"]), doubled);
        let input = json!({"name": "x", "shape": [rows.len(), 2], "datatype": "FP32", "data": rows});
        let inferred = api.infer(DOUBLES, json!({ "inputs": [input] }).to_string()).expect(200);
        assert_eq!(bits(&inferred["outputs"][0]["data"]), doubled);
    });
}

#[test]
fn numbers_are_taken_in_every_way_that_json_writes_them() {
    api(|api| {
        let taken = "[0.96,1e-7],[1E5,1],[-0.0,-0],[1e-400,0.1e+1],[123456789012345678901234567890,3e38]";
        let reply = api.predict(DOUBLES, format!("{{\"inputs\":[{taken}]}}"));
        let numbers = [0.96, 1e-7, 1e5, 1.0, -0.0, -0.0, 0.0, 1.0, 123_456_789_012_345_678_901_234_567_890.0_f32];
        let doubled: Vec<u32> = numbers.iter().map(|number| (number * 2.0).to_bits()).collect();
        let body = reply.body.replace("Infinity", "0");
        assert_eq!(reply.status, 200, "{reply:?}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(bits(&answer["outputs"])[..9], doubled[..], "{reply:?}");
        let refused =
            ["1.", ".5", "+1", "01", "0x1", "1e", "1e39", "-1e39", "true", "null", "\"1\"", "1,000", "1_0", "٣"];
        let path = format!("/v1/models/{DOUBLES}:predict");
        assert_all_refused(api, refused.map(|number| (path.as_str(), format!("{{\"inputs\":[[{number},1]]}}"), 400)));
    });
}

/// A request of each protocol for the model `types`, in which one tensor is as given.
fn types_with(changed: &str, row: &str) -> [(String, String); 2] {
    let row_of = |name: &str| match name {
        _ if name == changed => row.to_owned(),
        "bool" => "[true,false,false]".to_owned(),
        _ => "[1,2,3]".to_owned(),
    };
    let members: Vec<String> = TYPES.iter().map(|(name, _)| format!("\"{name}\":{}", row_of(name))).collect();
    let input = |(name, datatype): &(&str, &str)| {
        format!("{{\"name\":\"{name}\",\"shape\":[1,3],\"datatype\":\"{datatype}\",\"data\":{}}}", row_of(name))
    };
    let inputs: Vec<String> = TYPES.iter().map(input).collect();
    [
        ("/v1/models/types:predict".into(), format!("{{\"instances\":[{{{}}}]}}", members.join(","))),
        ("/v2/models/types/infer".into(), format!("{{\"inputs\":[{}]}}", inputs.join(","))),
    ]
}

#[test]
fn every_type_has_its_numbers_and_no_others() {
    api(|api| {
        let right = [
            ("int16", "[-32768,0,32767]", "[32767,0,-32768]"),
            ("int32", "[-2147483648,0,2147483647]", "[2147483647,0,-2147483648]"),
            (
                "int64",
                "[-9223372036854775808,9007199254740993,9223372036854775807]",
                "[9223372036854775807,9007199254740993,-9223372036854775808]",
            ),
            ("uint8", "[0,1,255]", "[255,1,0]"),
            ("bool", "[true,false,false]", "[false,false,true]"),
            ("float32", "[1,2.5,-3]", "[-3.0,2.5,1.0]"),
        ];
        for (name, row, turned) in right {
            for (path, body) in types_with(name, row) {
                let reply = api.post(&path, &[], body);
                assert_eq!(reply.status, 200, "{reply:?}");
                assert!(reply.body.contains(turned), "{path} {name}: {}", reply.body);
            }
        }
        let wrong = [
            ("int16", "32768"),
            ("int16", "-32769"),
            ("int32", "2147483648"),
            ("int32", "1.5"),
            ("int32", "1e2"),
            ("int32", "true"),
            ("int32", "\"1\""),
            ("int64", "9223372036854775808"),
            ("int64", "1.0"),
            ("uint8", "300"),
            ("uint8", "-1"),
            ("uint8", "256"),
            ("uint8", "1.5"),
            ("uint8", "true"),
            ("bool", "1"),
            ("bool", "0"),
            ("bool", "\"true\""),
            ("bool", "null"),
            ("float32", "true"),
            ("int32", "NaN"),
            ("bool", "NaN"),
        ];
        let rows: Vec<_> =
            wrong.iter().flat_map(|(name, number)| types_with(name, &format!("[0,0,{number}]"))).collect();
        assert_all_refused(api, rows.iter().map(|(path, body)| (path.as_str(), body.clone(), 400)));
    });
}

#[test]
fn half_and_double_precision_go_as_bytes() {
    api(|api| {
        let input = |name: &str, datatype: &str, size: usize| json!({"name": name, "shape": [1, 2], "datatype": datatype, "parameters": {"binary_data_size": size}});
        // 1 and 65504, the largest there is.
        let halves = [0x00, 0x3c, 0xff, 0x7b];
        let doubles: Vec<u8> = [2.0_f64, -0.5].iter().flat_map(|number| number.to_le_bytes()).collect();
        let head = json!({
            "inputs": [input("float16", "FP16", 4), input("float64", "FP64", 16)],
            "outputs": [{"name": "float64"}, {"name": "float16", "parameters": {"binary_data": true}}],
        });
        let (answer, bytes) = api.infer_binary("wide-and-narrow", &head, &[&halves[..], &doubles].concat());
        assert_eq!(answer["outputs"][0]["data"], json!([1.0, 65504.0]));
        assert_eq!(bytes, [0x00, 0x40, 0x00, 0xb8]);
        let all_as_json = json!({ "inputs": head["inputs"] });
        let sent = binary("wide-and-narrow", &all_as_json, &[&halves[..], &doubles].concat());
        assert!(api.send(sent).inference_error(400).contains("float16"));
    });
}

#[test]
fn a_model_without_rows_takes_whole_tensors() {
    api(|api| {
        let body = json!({"inputs": {"factor": 2, "vector": [1, 2, 3.5]}}).to_string();
        let outputs = json!({"outputs": {"product": [2.0, 4.0, 7.0], "sum": 13.0}});
        assert_eq!(api.predict("fixed", body).expect(200), outputs);
        let factor = |shape: Value| json!({"name": "factor", "shape": shape, "datatype": "FP32", "data": [2]});
        let vector = json!({"name": "vector", "shape": [3], "datatype": "FP32", "data": [1, 2, 3.5]});
        let answer = api.infer("fixed", json!({"inputs": [factor(json!([])), vector]}).to_string()).expect(200);
        assert_eq!(answer["outputs"][1], json!({"name": "sum", "datatype": "FP32", "shape": [], "data": [13.0]}));
        let (predict, infer) = ("/v1/models/fixed:predict", "/v2/models/fixed/infer");
        assert_all_refused(
            api,
            [
                (predict, json!({"instances": [{"factor": 2, "vector": [1, 2, 3]}]}).to_string(), 400),
                (predict, json!({"inputs": {"factor": [2], "vector": [1, 2, 3]}}).to_string(), 400),
                (predict, json!({"inputs": {"factor": 2, "vector": [1, 2]}}).to_string(), 400),
                (predict, json!({"inputs": {"factor": 2}}).to_string(), 400),
                (infer, json!({"inputs": [factor(json!([1])), vector]}).to_string(), 400),
                (
                    infer,
                    json!({"inputs": [factor(json!([])), {"name": "vector", "shape": [1, 3], "datatype": "FP32",
                "data": [1, 2, 3]}]})
                    .to_string(),
                    400,
                ),
            ],
        );
    });
}

// ---- What else is wrong ----

fn wrong_paths() -> Vec<(&'static str, String, u16)> {
    let row = "{\"instances\":[[1,2]]}";
    let infer = one_row("[1,2]");
    let of = |paths: &[(&'static str, u16)], body: &str| -> Vec<(&'static str, String, u16)> {
        paths.iter().map(|(path, status)| (*path, body.to_owned(), *status)).collect()
    };
    let served = [
        ("/v1/models/nobody:predict", 404),
        ("/v1/models/custom-op:predict", 404),
        ("/v1/models/..%2Fdigits:predict", 404),
        ("/v1/models/no-signature%00:predict", 404),
        ("/v1/models/no-signature/versions/2:predict", 404),
        ("/v1/models/no-signature/versions/18446744073709551615:predict", 404),
        ("/v1/models/no-signature/versions/18446744073709551616:predict", 400),
        ("/v1/models/no-signature/versions/-1:predict", 400),
        ("/v1/models/no-signature/versions/+1:predict", 400),
        ("/v1/models/no-signature/versions/one:predict", 400),
        ("/v1/models/no-signature/versions/:predict", 404),
        ("/v1/models/no-signature/labels/stable:predict", 404),
        ("/v1/models/no-signature:classify", 405),
        ("/v1/models/no-signature:regress", 405),
        ("/v1/models/no-signature/predict", 404),
        ("/v1/models/:predict", 404),
    ];
    let inferred = [
        ("/v2/models/nobody/infer", 404),
        ("/v2/models/no-signature/versions/2/infer", 404),
        ("/v2/models/no-signature/versions/one/infer", 400),
        ("/v2/models/no-signature/infer/", 404),
        ("/v2/models/no-signature/generate", 404),
        ("/v2/models//infer", 404),
        ("/v2/repository/index", 404),
    ];
    [of(&served, row), of(&inferred, &infer)].concat()
}

fn wrong_predictions() -> Vec<(&'static str, String, u16)> {
    let of_one = [
        "",
        " ",
        "{",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{}",
        "{\"instances\":1}",
        "{\"instances\":null}",
        "{\"instances\":{}}",
        "{\"instances\":[]}",
        "{\"instances\":[[]]}",
        "{\"inputs\":[]}",
        "{\"inputs\":{}}",
        "{\"inputs\":null}",
        "{\"instances\":[[1,2]],\"inputs\":[[1,2]]}",
        "{\"instances\":[[1,2]],\"other\":1}",
        "{\"instances\":[[1,2]],\"instances\":[[1,2]]}",
        "{\"instances\":[[1,2]]}x",
        "{\"instances\":[[1,2]],}",
        "{\"signature_name\":\"other\",\"instances\":[[1,2]]}",
        "{\"signature_name\":1,\"instances\":[[1,2]]}",
        "{\"instances\":[1,2]}",
        "{\"instances\":[[[1,2]]]}",
        "{\"instances\":[[1,2],[3]]}",
        "{\"instances\":[[1,2],3]}",
        "{\"instances\":[[1,2,3]]}",
        "{\"instances\":[[\"1\",\"2\"]]}",
        "{\"instances\":[[1,null]]}",
        "{\"instances\":[{\"x\":[1,2]},{\"y\":[1,2]}]}",
        "{\"instances\":[{\"x\":[1,2],\"y\":1}]}",
        "{\"instances\":[{\"x\":[1,2],\"x\":[1,2]}]}",
        "{\"instances\":[{}]}",
        "{\"inputs\":{\"x\":[1,2]}}",
        "{\"instances\":[{\"b64\":\"AACAPwAAAE\"}]}",
        "{\"instances\":[{\"b64\":\"AACAPw==\"}]}",
        "{\"instances\":[{\"b64\":\"AACAPwAAAEA*\"}]}",
        "{\"instances\":[{\"b64\":1}]}",
        "{\"instances\":[{\"b64\":\"\"}]}",
        "{\"instances\":[{\"x\":{\"b64\":\"AACAPwAAAA\"}}]}",
        "{\"instances\":[[{\"b64\":\"AACA\"},1]]}",
    ];
    let of_two = [
        "{\"instances\":[[1,2,3,4]]}",
        "{\"instances\":[{\"person\":[1,2,3,4]}]}",
        "{\"inputs\":{\"person\":[[1,2,3,4]],\"serum\":[]}}",
        "{\"inputs\":[[1,2,3,4]]}",
        "{\"inputs\":{\"person\":[[1,2,3,4]],\"serum\":[[1,2,3,4,5,6],[1,2,3,4,5,6]]}}",
        "{\"instances\":[{\"person\":[1,2,3,4],\"serum\":[1,2,3,4,5]}]}",
        "{\"instances\":[{\"person\":[1,2,3,4],\"serum\":[1,2,3,4,5,6],\"more\":[1]}]}",
        "{\"instances\":[{\"b64\":\"AAAA\"}]}",
    ];
    let deep = ["[", "{\"x\":", "{\"instances\":[", "{\"inputs\":["].map(|start| start.repeat(50_000));
    let mut rows = Vec::new();
    rows.extend(of_one.iter().map(|body| ("/v1/models/no-signature:predict", (*body).to_owned(), 400)));
    rows.extend(of_two.iter().map(|body| ("/v1/models/diabetes:predict", (*body).to_owned(), 400)));
    rows.extend(deep.into_iter().map(|body| ("/v1/models/no-signature:predict", body, 400)));
    rows.push(("/v1/models/no-signature:predict", format!("{{\"instances\":[{}", "[".repeat(100_000)), 400));
    rows.push(("/v1/models/digits:predict", json!({"instances": [vec![vec![[1]; 8]; 9]]}).to_string(), 400));
    rows
}

#[test]
fn wrong_names_versions_and_tensors_are_refused() {
    api(|api| {
        assert_all_refused(api, wrong_paths());
        assert_all_refused(api, wrong_predictions());
    });
}

#[test]
fn methods_that_a_path_does_not_have_are_refused_with_those_it_has() {
    api(|api| {
        for (method, path, allowed) in [
            ("GET", "/v1/models/digits:predict", "POST, OPTIONS"),
            ("PUT", "/v2/models/digits/infer", "POST, OPTIONS"),
            ("POST", "/v2/models/digits", "GET, HEAD, OPTIONS"),
            ("DELETE", "/v1/models/digits", "GET, HEAD, OPTIONS"),
            ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ] {
            let reply = api.send(wire::request(method, path, &[], ""));
            assert_eq!((no_refusal(&reply, 405), reply.header("allow")), (None, Some(allowed)), "{method} {path}");
        }
    });
}

#[test]
fn the_largest_body_is_served_and_one_byte_more_is_refused() {
    api(|api| {
        let rows_of = |bytes: usize| bytes / 8;
        let head = |rows: usize| {
            json!({
                "inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "parameters": {"binary_data_size": rows * 8}}],
                "parameters": {"binary_data_output": true},
            })
        };
        let rows = rows_of(BODY_MAX - 200);
        let sent: Vec<f32> = (0..rows * 2).map(|number| number as f32).collect();
        let (_, came) = api.infer_binary(DOUBLES, &head(rows), &bytes_of(&sent));
        assert_eq!(floats(&came), sent.iter().map(|number| number * 2.0).collect::<Vec<_>>());
        let start = "{\"instances\":[[1,2]]}";
        let padded = |size: usize| format!("{start}{}", " ".repeat(size - start.len()));
        assert_eq!(api.predict(DOUBLES, padded(BODY_MAX)).status, 200);
        for path in [format!("/v1/models/{DOUBLES}:predict"), infer_path(DOUBLES)] {
            assert_eq!(no_refusal(&api.post(&path, &[], padded(BODY_MAX + 1)), 413), None, "{path}");
        }
        assert_eq!(api.post("/api/classify", &[], padded(BODY_MAX + 1)).problem(413).0, "body-too-large");
        let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
        let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", infer_path(DOUBLES));
        assert_eq!(no_refusal(&api.send(head + &chunk.repeat(9) + "0\r\n\r\n"), 413), None, "in chunks");
    });
}

// ---- For long ----

/// A request of every kind, right and wrong, with the status that it is answered with.
fn every_kind() -> Vec<(Vec<u8>, u16)> {
    let post = |path: &str, body: &str| wire::request("POST", path, &[], body);
    let infer = infer_path(DOUBLES);
    let mut all: Vec<(Vec<u8>, u16)> = Vec::new();
    all.extend(wrong_paths().iter().map(|(path, body, status)| (post(path, body), *status)));
    all.extend(wrong_predictions().iter().map(|(path, body, status)| (post(path, body), *status)));
    all.extend(malformed_json_bodies().iter().map(|body| (post(&infer, body), 400)));
    for (_, length, body) in malformed_binary_bodies() {
        let header = length.as_deref().map(|length| (JSON_LENGTH, length));
        all.push((wire::request("POST", &infer, header.as_slice(), &body), 400));
    }
    let rows = json!({"instances": vec![vec![vec![[0.5]; 8]; 8]; 20]}).to_string();
    let gzipped =
        wire::request("POST", "/v1/models/digits:predict", &[("Content-Encoding", "gzip")], gzip(rows.as_bytes()));
    let right = [
        (post("/v1/models/digits:predict", &rows), 200),
        (
            post("/v1/models/digits-int8:predict", &json!({"instances": vec![vec![vec![[5]; 8]; 8]; 3]}).to_string()),
            200,
        ),
        (post("/v1/models/diabetes:predict", &person("NaN")), 200),
        (post(&infer, &one_row("[1,2]")), 200),
        (gzipped, 200),
        (wire::get("/v2/models/types"), 200),
        (wire::get("/api/users"), 200),
    ];
    let often = all.len() / 4;
    all.extend(std::iter::repeat_n(right, often).flatten());
    all
}

/// Sends all, on a connection until the service closes it.
fn send_all(service: &Service, requests: &[(Vec<u8>, u16)]) {
    let mut kept: Option<Raw> = None;
    for (request, status) in requests {
        let mut connection = kept.take().unwrap_or_else(|| service.connect());
        let reply = connection.request(request).unwrap();
        assert_eq!(reply.status, *status, "{}: {reply:?}", String::from_utf8_lossy(&request[..request.len().min(300)]));
        kept = Some(connection).filter(|_| reply.header("connection") != Some("close"));
    }
}

#[test]
fn memory_is_flat_over_thousands_of_requests_right_and_wrong() {
    api(|api| {
        let requests = every_kind();
        // The first round is for what is made once and kept.
        send_all(&api.service, &requests);
        let before = (api.service.at_rest(), proportional_anonymous_kib(api.service.pid()));
        let rounds = if harness::long() { 100 } else { 10 };
        (0..rounds).for_each(|_| send_all(&api.service, &requests));
        let after = (api.service.at_rest(), proportional_anonymous_kib(api.service.pid()));
        println!("{} requests: {} KiB before, {} after", requests.len() * rounds, before.1, after.1);
        assert!(requests.len() * rounds > 3000);
        assert!(after.1 < before.1 + 2048, "{} KiB, then {}", before.1, after.1);
        assert_eq!(after.0.descriptors, before.0.descriptors);
    });
}
