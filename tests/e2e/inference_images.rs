//! Pictures: what they show, and what is no picture, or one that no one should decode.

use std::fs;

use flate2::{Compress, Compression, Crc, FlushCompress};
use harness::{Models, Reply, Runtime, Service, images, none_wrong, proportional_anonymous_kib, shipped_models, wire};
use serde_json::json;

fn service() -> Service {
    Service::builder(Runtime::Aot).models(&shipped_models()).watched(true).start()
}

fn classify(service: &Service, query: &str, picture: impl AsRef<[u8]>) -> Reply {
    let target = format!("/api/classify{query}");
    // As curl sends it, unless it is told otherwise.
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    service.connect().request(wire::request("POST", &target, &headers, picture)).unwrap()
}

fn image(name: &str) -> Vec<u8> {
    fs::read(images().join(name)).unwrap()
}

/// The served users are the proof that nothing broke.
fn assert_serves(service: &Service) {
    service.add_user("Ada", "ada@x.org");
    let reply = classify(service, "?model=digits&top=1", image("7.png"));
    assert_eq!(reply.expect(200)["labels"][0]["label"], "7");
}

// ---- Pictures ----

#[test]
fn pictures_of_many_kinds_show_what_they_are_called() {
    let service = service();
    let mut names: Vec<String> =
        fs::read_dir(images()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    let rows = names.iter().flat_map(|name| ["digits", "digits-int8"].map(|model| (name, model)));
    none_wrong(rows, |(name, model)| {
        let answer = classify(&service, &format!("?model={model}&version=1&top=2"), image(name)).expect(200);
        let [first, second] = answer["labels"].as_array().unwrap().as_slice() else { panic!("{answer}") };
        assert_eq!((&answer["model"], &answer["version"]), (&json!(model), &json!("1")));
        assert!(first["score"].as_f64() >= second["score"].as_f64(), "{answer}");
        (first["label"] != name[..1]).then(|| format!("{name} by {model}: {answer}"))
    });
}

#[test]
fn the_answer_has_as_many_labels_as_are_asked_for() {
    let service = service();
    let labels = |query: &str| {
        let answer = classify(&service, query, image("3.png")).expect(200);
        answer["labels"].as_array().unwrap().len()
    };
    assert_eq!(labels("?model=digits"), 5);
    assert_eq!(labels("?model=digits&top=1"), 1);
    assert_eq!(labels("?model=digits&top=100"), 10);
    let only = Models::new();
    only.copy_shipped("digits", "7");
    let service = Service::builder(Runtime::Aot).models(only.path()).start();
    let answer = classify(&service, "?top=1", image("3.png")).expect(200);
    assert_eq!(
        (&answer["model"], &answer["version"], &answer["labels"][0]["label"]),
        (&json!("digits"), &json!("7"), &json!("3"))
    );
}

#[test]
fn a_question_that_makes_no_sense_is_refused() {
    let service = service();
    for (query, status, kind, what) in [
        ("", 400, "invalid-parameter", "digits-int8"),
        ("?model=nobody", 404, "no-such-model", "nobody"),
        ("?model=", 404, "no-such-model", ""),
        ("?model=digits&version=2", 404, "no-such-model", "2"),
        ("?model=digits&version=one", 400, "invalid-parameter", "version"),
        ("?model=digits&version=%2B1", 400, "invalid-parameter", "version"),
        ("?model=digits&top=0", 400, "invalid-parameter", "top"),
        ("?model=digits&top=101", 400, "invalid-parameter", "top"),
        ("?model=digits&top=x", 400, "invalid-parameter", "top"),
        ("?model=digits&model=digits", 400, "invalid-parameter", "model"),
        ("?model=digits&other=1", 400, "invalid-parameter", "other"),
        ("?model=diabetes", 400, "invalid-parameter", "no images"),
    ] {
        let (told, detail) = classify(&service, query, image("3.png")).problem(status);
        assert!(told == kind && detail.contains(what), "{query}: {told}: {detail}");
    }
    let reply = service.get("/api/classify");
    assert_eq!((reply.problem(405).0.as_str(), reply.header("allow")), ("method-not-allowed", Some("POST, OPTIONS")));
    assert_serves(&service);
}

// ---- What is none ----

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(data);
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], kind, data, &sum.sum().to_be_bytes()].concat()
}

/// A grey PNG, one byte a pixel, that says to be so large and has these compressed pixels.
fn png(width: u32, height: u32, deflated: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let pixels = [&[0x78, 0xda][..], deflated].concat();
    let start = b"\x89PNG\r\n\x1a\n".to_vec();
    [start, chunk(b"IHDR", &header), chunk(b"IDAT", &pixels), chunk(b"IEND", b"")].concat()
}

/// So many mebibytes of black, compressed.
fn black(mebibytes: usize) -> Vec<u8> {
    let mut deflated = Vec::with_capacity(1 << 16);
    Compress::new(Compression::best(), false)
        .compress_vec(&vec![0; 1 << 20], &mut deflated, FlushCompress::Full)
        .unwrap();
    deflated.repeat(mebibytes)
}

/// A JPEG that says to be 30,000 pixels along each side.
fn large_jpeg() -> Vec<u8> {
    let mut file = image("5.jpg");
    let frame = file.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    // Marker, length and precision come before height and width.
    file[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    file
}

#[test]
fn what_is_no_picture_or_a_damaged_one_is_refused() {
    let service = service();
    let (whole_png, whole_jpeg) = (image("8-rgb-32x32.png"), image("1-rgb-32x32.jpg"));
    let mut wrong_sum = whole_png.clone();
    let middle = wrong_sum.len() / 2;
    wrong_sum[middle] ^= 1;
    let others: [(&str, &[u8]); 9] = [
        ("nothing", b""),
        ("text", b"7"),
        ("GIF", b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"),
        ("WebP", b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0"),
        ("BMP", b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"),
        ("SVG", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
        ("PDF", b"%PDF-1.7\n"),
        ("JSON", b"{\"instances\":[[1]]}"),
        ("half of the first bytes of a PNG", b"\x89PNG"),
    ];
    for (what, file) in others {
        let reply = classify(&service, "?model=digits", file);
        assert_eq!(reply.problem(415).0, "unsupported-media-type", "{what}");
        assert_eq!(reply.header("accept-post"), Some("image/png, image/jpeg"), "{what}");
    }
    let damaged = [
        ("half a PNG", whole_png[..whole_png.len() / 2].to_vec()),
        ("half a JPEG", whole_jpeg[..whole_jpeg.len() / 2].to_vec()),
        ("a JPEG's head", whole_jpeg[..60].to_vec()),
        ("a PNG's head", whole_png[..33].to_vec()),
        ("another sum", wrong_sum),
        ("no pixels", png(0, 8, &black(1))),
        ("too few", png(4096, 1024, &black(1))),
        ("no numbers at all", png(8, 8, b"no deflate")),
    ];
    none_wrong(damaged, |(what, file)| {
        let reply = classify(&service, "?model=digits", &file);
        let is_right = reply.status == 400 && reply.problem(400).0 == "invalid-image";
        (!is_right).then(|| format!("{what}: {} {}", reply.status, reply.body))
    });
    assert_serves(&service);
}

#[test]
fn pictures_that_explode_are_refused_and_take_no_memory() {
    let service = service();
    let bombs = [
        ("30,000 by 30,000", png(30_000, 30_000, &black(859))),
        ("as many as can be said", png(u32::MAX >> 1, u32::MAX >> 1, &black(1))),
        ("a long one", png(4_000_000, 1, &black(4))),
        ("just too many", png(4096, 1025, &black(5))),
        ("30,000 by 30,000 as JPEG", large_jpeg()),
    ];
    let explode = || {
        for (what, bomb) in &bombs {
            let (kind, detail) = classify(&service, "?model=digits", bomb).problem(400);
            assert!(kind == "invalid-image" && detail.contains("pixels"), "{what}: {kind}: {detail}");
        }
        // Small ones with more than belongs to them: it is left out.
        let more = classify(&service, "?model=digits", png(8, 8, &black(512)));
        assert!([200, 400].contains(&more.status), "{more:?}");
        proportional_anonymous_kib(service.pid())
    };
    // The first round is for what is made once and kept.
    let before = explode();
    let after = (0..20).map(|_| explode()).max().unwrap();
    println!("{before} KiB after the first round, {after} at most later");
    assert!(after < before + (4 << 10), "{before}, then {after} KiB");
    assert_eq!(classify(&service, "?model=digits", png(4096, 1024, &black(5))).status, 200, "the largest there may be");
    assert_serves(&service);
}
