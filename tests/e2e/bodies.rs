//! What a client can get wrong in method, path, query, headers and body: each has its answer, none
//! does harm. Every test speaks to a service of its own, which must be alive at its end.

use harness::{Raw, Reply, Runtime, Service, none_wrong, wire};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("Content-Type", "application/json");
/// Largest body there may be.
const BODY_MAX: usize = 64 << 10;
/// The routes, and what their `Allow` says.
const ROUTES: &[(&str, &[&str])] = &[
    ("/api/users", &["GET", "HEAD", "POST", "OPTIONS"]),
    ("/api/users/1", &["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    ("/api/health", &["GET", "HEAD", "OPTIONS"]),
    ("/livez", &["GET", "HEAD", "OPTIONS"]),
    ("/readyz", &["GET", "HEAD", "OPTIONS"]),
];
const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW", "get", "GETT"];
/// The requests that take a body, where user 1 exists.
const WRITES: &[(&str, &str)] = &[("POST", "/api/users"), ("PUT", "/api/users/1"), ("PATCH", "/api/users/1")];

on_every_runtime!(
    all_that_is_wrong_is_named_at_once_up_to_a_bound,
    nesting_however_deep_has_a_clear_answer,
    emails_that_differ_in_case_or_encoding_only_belong_to_one_user,
    a_body_may_have_65536_bytes_and_not_one_more
);

/// A service that is asked the strangest things and never answers 5xx.
struct Api(Service);

/// Runs a test against a service with one user, which must have survived it.
fn api(test: impl FnOnce(&Api)) {
    api_on(Runtime::Aot, test);
}

fn api_on(runtime: Runtime, test: impl FnOnce(&Api)) {
    let api = Api(Service::builder(runtime).start());
    api.0.add_user("Ada", "ada@example.org");
    test(&api);
    api.0.assert_alive();
}

impl Api {
    fn send(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let reply = self.0.connect().request(&bytes).unwrap();
        assert!(reply.status < 500, "{}\n{reply:?}", String::from_utf8_lossy(bytes.as_ref()));
        reply
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        self.send(wire::request(method, target, headers, body))
    }

    fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], "")
    }

    fn write(&self, method: &str, target: &str, body: impl AsRef<[u8]>) -> Reply {
        self.ask(method, target, &[JSON], body)
    }

    fn post(&self, body: impl AsRef<[u8]>) -> Reply {
        self.write("POST", "/api/users", body)
    }

    /// Sends a body to every route that takes one and asserts that all answer with this problem.
    fn refuses(&self, body: impl AsRef<[u8]>, status: u16, kind: &str) {
        for (method, target) in WRITES {
            let reply = self.write(method, target, &body);
            let shown = String::from_utf8_lossy(body.as_ref()).chars().take(200).collect::<String>();
            assert_eq!(reply.status, status, "{method} {shown}\n{reply:?}");
            assert_eq!(reply.problem(status).0, kind, "{method} {shown}");
        }
    }

    /// Sends a body to every route that takes one and asserts that all name these fields.
    fn names(&self, body: &str, fields: &[&str]) {
        for (method, target) in WRITES {
            assert_eq!(pointers(&self.write(method, target, body)), fields, "{method} {body}");
        }
    }
}

/// The fields that an answer of 422 names, sorted.
fn pointers(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 422, "{reply:?}");
    assert_eq!(reply.problem(422).0, "invalid-fields");
    let document = reply.json();
    let errors = document["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()), "{document}");
    let mut pointers: Vec<String> = errors.iter().map(|error| error["pointer"].as_str().unwrap().into()).collect();
    pointers.sort();
    pointers
}

/// A valid user with one member replaced by this JSON.
fn user_with(name: &str, value: &str) -> String {
    let mut members = vec![("name", "\"n\""), ("email", "\"n@x.org\""), ("active", "true")];
    members.retain(|(other, _)| *other != name);
    members.push((name, value));
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn what_is_not_json_is_malformed() {
    let bodies = [
        "",
        " \r\n\t",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{'name':1}",
        "{name:1}",
        "{\"name\"}",
        "{\"name\":}",
        "{\"name\":\"n\",}",
        "{,}",
        "{\"name\":\"n\" \"email\":\"x\"}",
        "[1,]",
        "[1",
        "nul",
        "True",
        "undefined",
        "NaN",
        "{\"name\":Infinity}",
        "{\"name\":-}",
        "{\"name\":01}",
        "{\"name\":+1}",
        "{\"name\":.5}",
        "{\"name\":1.}",
        "{\"name\":1e}",
        "{\"name\":0x10}",
        "{\"name\":\"n}",
        "{\"name\":\"a\nb\"}",
        "{\"name\":\"a\0b\"}",
        "{\"name\":\"\\x41\"}",
        "{\"name\":\"\\u12\"}",
        "{\"name\":\"\\u12g4\"}",
        "{\"\\ud800\":1}",
        "{\"name\":\"n\"/* why */}",
        "// why\n{}",
        "{\"x\":[1,}}",
        "{}\0",
        "\u{feff}{}",
        "name=n&email=n@x.org",
        "<user/>",
    ];
    api(|api| bodies.iter().for_each(|body| api.refuses(body, 400, "malformed-body")));
}

#[test]
fn what_is_not_utf8_is_malformed() {
    let bodies: [&[u8]; 10] = [
        b"\xff",
        b"{\"name\":\"\xff\"}",
        b"{\"na\xe9me\":\"latin-1\"}",
        b"{\"name\":\"cut \xf0\x9f\xa6\"}",
        b"{\"name\":\"overlong \xc0\xaf\"}",
        b"{\"name\":\"surrogate \xed\xa0\x80\"}",
        b"{\"name\":\"beyond \xf4\x90\x80\x80\"}",
        b"{}\x80",
        b"\xff\xfe{\0}\0",
        b"\0{\0}",
    ];
    api(|api| bodies.iter().for_each(|body| api.refuses(body, 400, "malformed-body")));
}

#[test]
fn a_name_twice_is_malformed_however_it_is_written_and_whatever_else_is_wrong() {
    let bodies = [
        r#"{"name":"a","name":"a"}"#,
        r#"{"name":"a","email":"n@x.org","active":true,"name":"b"}"#,
        r#"{"name":"a","\u006eame":"b"}"#,
        r#"{"active":true , "active" : true}"#,
        r#"{"unknown":1,"unknown":2}"#,
        r#"{"":1,"":2}"#,
        r#"{"name":7,"name":null}"#,
    ];
    api(|api| bodies.iter().for_each(|body| api.refuses(body, 400, "malformed-body")));
}

#[test]
fn a_body_that_is_not_an_object_is_invalid_as_a_whole() {
    let bodies = ["[]", "[{}]", "null", "true", "1", "-0.5e-3", "\"\"", "\"{}\"", "1e999", " [ ] "];
    api(|api| bodies.iter().for_each(|body| api.names(body, &[""])));
}

#[test]
fn a_value_of_the_wrong_type_is_named_by_its_field() {
    let digits = "9".repeat(400);
    let strings = ["1", "1e999", "-1E+400", &digits, "true", "null", "[]", "[\"n\"]", "{}", "{\"name\":\"n\"}"];
    let booleans = ["\"true\"", "\"\"", "0", "1", "1e999", &digits, "null", "[]", "[true]", "{}"];
    api(|api| {
        for value in strings {
            api.names(&user_with("name", value), &["/name"]);
            api.names(&user_with("email", value), &["/email"]);
        }
        for value in booleans {
            api.names(&user_with("active", value), &["/active"]);
        }
    });
}

#[test]
fn unknown_fields_are_named_those_that_only_the_service_sets_among_them() {
    let cases = [
        ("id", "1", "/id"),
        ("created_at", "\"2026-01-01T00:00:00.000000Z\"", "/created_at"),
        ("updated_at", "null", "/updated_at"),
        ("", "0", "/"),
        ("Name", "\"n\"", "/Name"),
        ("name ", "\"n\"", "/name "),
        ("e-mail", "\"n@x.org\"", "/e-mail"),
        ("a/b~c", "{}", "/a~1b~0c"),
        ("__proto__", "{\"active\":false}", "/__proto__"),
        ("\u{0}🦀\"", "[]", "/\u{0}🦀\""),
    ];
    api(|api| cases.iter().for_each(|(name, value, pointer)| api.names(&user_with(name, value), &[pointer])));
}

fn all_that_is_wrong_is_named_at_once_up_to_a_bound(runtime: Runtime) {
    api_on(runtime, |api| {
        let body = r#"{"name":"","email":7,"active":"no","id":1,"role":"admin"}"#;
        api.names(body, &["/active", "/email", "/id", "/name", "/role"]);
        assert_eq!(pointers(&api.post("{}")), ["/email", "/name"], "active is optional");
        assert_eq!(pointers(&api.write("PUT", "/api/users/1", "{}")), ["/active", "/email", "/name"]);

        let many: Vec<String> = (0..5000).map(|n| format!("\"k{n}\":0")).collect();
        let reply = api.post(format!("{{{}}}", many.join(",")));
        assert_eq!(pointers(&reply).len(), 32);
        assert!(reply.body.len() < 8 << 10, "{}", reply.body.len());
    });
}

fn nesting_however_deep_has_a_clear_answer(runtime: Runtime) {
    const DEPTH: usize = 30_000;
    let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
    let (objects, ends) = ("{\"a\":".repeat(10_000), "}".repeat(10_000));
    api_on(runtime, |api| {
        api.names(&format!("{open}{close}"), &[""]);
        api.names(&user_with("name", &format!("{open}{close}")), &["/name"]);
        api.names(&user_with("deep", &format!("{objects}1{ends}")), &["/deep"]);
        api.refuses(format!("{open}{open}"), 400, "malformed-body");
        api.refuses(format!("{{\"name\":{open}"), 400, "malformed-body");
        api.refuses(format!("{objects}{ends}"), 400, "malformed-body");
    });
}

#[test]
fn an_id_is_plain_digits_within_bounds() {
    let digits = "9".repeat(400);
    let invalid = [
        "0",
        "-1",
        "+1",
        "01",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "340282366920938463463374607431768211457",
        &digits,
        "abc",
        "1.0",
        "1.",
        "1e0",
        "0x1",
        "1_0",
        "null",
        "%31",
        "1%00",
        "%201",
        "1%20",
        "1%2F2",
        "%D9%A1",
        "%FF",
        "1;v=2",
        "1,2",
        "*",
        ":id",
        "{id}",
    ];
    api(|api| {
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            let ask = |id: &str| api.write(method, &format!("/api/users/{id}"), user_with("active", "true"));
            for id in invalid {
                assert_eq!(ask(id).problem(400).0, "invalid-id", "{method} {id}");
            }
            for id in ["2", "4294967297", "9223372036854775807"] {
                assert_eq!(ask(id).problem(404).0, "no-such-user", "{method} {id}");
            }
        }
        assert_eq!(api.get("/api/users/1").status, 200);
    });
}

#[test]
fn names_of_1_to_200_characters_after_trimming_come_back_as_they_were_sent() {
    let long = ["a", "é", "e\u{301}\u{301}", "🦀"].map(|character| {
        character.chars().cycle().take(200).collect::<String>() // Characters are Unicode scalar values.
    });
    let mut names = vec![
        "a",
        "\"quoted\" \\ and 'single'",
        "a\0b",
        "\0",
        "two\nlines\tand a tab",
        "Robert'); DROP TABLE users;--",
        "<script>alert(1)</script>",
        "👩‍👩‍👧‍👦 🦀",
        "\u{202e}right to left",
        "\u{200b}",
        "\u{fffd}\u{10ffff}",
        "null",
        "%00 {} ${x}",
    ];
    names.extend(long.iter().map(String::as_str));
    api(|api| {
        for (n, name) in names.iter().enumerate() {
            let body = json!({"name": name, "email": format!("u{n}@x.org")}).to_string();
            let created = api.post(body).expect(201);
            assert_eq!(created["name"], *name);
            assert_eq!(api.get(&format!("/api/users/{}", created["id"])).expect(200), created);
        }
        let padded = format!(" \t\u{a0}\u{2003}{}\u{3000}\n", long[3]);
        let patched = api.write("PATCH", "/api/users/1", json!({"name": padded}).to_string());
        assert_eq!(patched.expect(200)["name"], long[3]);
        let escaped = api.write("PATCH", "/api/users/1", r#"{"name":"\ud83e\udd80\u0041\/"}"#);
        assert_eq!(escaped.expect(200)["name"], "🦀A/");
    });
}

#[test]
fn names_that_are_too_long_or_only_white_space_are_invalid() {
    let names = [
        String::new(),
        " ".into(),
        "\t\r\n\u{a0}\u{2003}\u{3000}".into(),
        " ".repeat(201),
        "a".repeat(201),
        "🦀".repeat(201),
        "e\u{301}".repeat(101),
        "a".repeat(10_000),
        "🦀".repeat(10_000),
    ];
    api(|api| {
        for name in names {
            api.names(&user_with("name", &json!(name).to_string()), &["/name"]);
        }
        api.names(&user_with("name", r#""half a pair: \ud83e""#), &["/name"]);
    });
}

#[test]
fn emails_are_addresses_and_nothing_else() {
    let labels = format!("{}.{}.{}", "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let longest = format!("{}@{labels}", "a".repeat(64));
    assert_eq!(longest.len(), 254);
    let good =
        ["a@x.org", "ada+tag@x.org", "o'neil.b-c_d@sub.x.org", "jörg@müller.example", "用户@例子.广告", &longest];
    let too_long = format!("{longest}d");
    let long_local = format!("{}@x.org", "a".repeat(65));
    let bad = [
        "",
        " ",
        "ada",
        "@",
        "@x.org",
        "ada@",
        "a b@x.org",
        " ada@x.org",
        "ada@x.org ",
        "ada@x.org\n",
        "a@@x.org",
        "a@b@x.org",
        "a@x..org",
        "a@.org",
        "a@x.org.",
        ".a@x.org",
        "a.@x.org",
        "a..b@x.org",
        "a\0@x.org",
        "a@x\0.org",
        "a\r\nBcc: b@x.org",
        "Ada <ada@x.org>",
        "a@x.org,b@x.org",
        "mailto:a@x.org?subject=x",
        &too_long,
        &long_local,
    ];
    api(|api| {
        for email in good {
            assert_eq!(api.post(wire::user(email)).expect(201)["email"], email);
        }
        for email in bad {
            api.names(&user_with("email", &json!(email).to_string()), &["/email"]);
        }
    });
}

fn emails_that_differ_in_case_or_encoding_only_belong_to_one_user(runtime: Runtime) {
    let same = ["josé@x.org", "JOSÉ@X.ORG", "jose\u{301}@x.org", "JOSE\u{301}@x.ORG"];
    let ring = ["\u{212b}ngstrom@x.org", "\u{c5}NGSTROM@x.org", "a\u{30a}ngstrom@x.org"];
    let hangul = ["\u{ac00}@x.org", "\u{1100}\u{1161}@x.org"];
    let groups: [&[&str]; 3] = [&same, &ring, &hangul];
    api_on(runtime, |api| {
        for group in groups {
            let owner = api.post(wire::user(group[0])).expect(201);
            for email in group {
                for (method, target) in WRITES {
                    let reply = api.write(method, target, user_with("email", &json!(email).to_string()));
                    assert_eq!(reply.problem(409).0, "duplicate-email", "{method} {email}");
                    assert_eq!(reply.json()["errors"][0]["pointer"], "/email");
                }
                let own = format!("/api/users/{}", owner["id"]);
                let kept = api.write("PATCH", &own, json!({"email": email}).to_string());
                assert_eq!(kept.expect(200)["email"], *email, "one's own address in another form");
            }
        }
        // An accent makes another address, and what is deleted is free again.
        api.post(wire::user("jose@x.org")).expect(201);
        assert_eq!(api.ask("DELETE", "/api/users/1", &[], "").status, 204);
        api.post(wire::user("ADA@example.org")).expect(201);
    });
}

fn a_body_may_have_65536_bytes_and_not_one_more(runtime: Runtime) {
    let padded = |body: &str, size: usize| format!("{body}{}", " ".repeat(size - body.len()));
    let framed = |body: &str| {
        let half = body.len() / 2;
        let chunks =
            format!("{half:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &body[..half], body.len() - half, &body[half..]);
        [wire::post(body), wire::post_framed(&["Transfer-Encoding: chunked"], chunks)]
    };
    api_on(runtime, |api| {
        for (n, email) in ["a@x.org", "b@x.org"].iter().enumerate() {
            let whole = padded(&wire::user(email), BODY_MAX);
            api.send(&framed(&whole)[n]).expect(201);
        }
        let name = "n".repeat(BODY_MAX - wire::user("c@x.org").len() + 1);
        let invalid = json!({"name": name, "email": "c@x.org"}).to_string();
        assert_eq!(invalid.len(), BODY_MAX);
        for bytes in framed(&invalid) {
            assert_eq!(pointers(&api.send(bytes)), ["/name"]);
        }
        for body in [padded(&wire::user("d@x.org"), BODY_MAX + 1), "x".repeat(BODY_MAX + 1), invalid + " "] {
            for bytes in framed(&body) {
                assert_eq!(api.send(bytes).problem(413).0, "body-too-large");
            }
        }
        assert_eq!(api.get("/api/users").expect(200)["users"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn a_body_of_another_media_type_is_refused_with_those_that_would_do() {
    let not_json = [
        "text/plain",
        "text/json",
        "text/html; charset=utf-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonx",
        "application/problem+json",
        "application/json; charset=latin1",
        "application/json; charset=iso-8859-1",
        "application/json; charset=utf-16",
        "application/json;charset=\"us-ascii\"",
        "json",
        "*/*",
        "",
    ];
    let accepts = [
        ("POST", "/api/users", "accept-post", "application/json"),
        ("PUT", "/api/users/1", "accept", "application/json"),
        ("PATCH", "/api/users/1", "accept-patch", "application/merge-patch+json, application/json"),
    ];
    api(|api| {
        for (method, target, header, types) in accepts {
            let refused = |headers: &[(&str, &str)]| {
                let reply = api.ask(method, target, headers, user_with("active", "true"));
                assert_eq!(reply.status, 415, "{method} {headers:?} {reply:?}");
                assert_eq!(reply.problem(415).0, "unsupported-media-type", "{method} {headers:?}");
                assert_eq!(reply.header(header), Some(types), "{method} {headers:?}");
            };
            refused(&[]);
            not_json.iter().for_each(|content_type| refused(&[("Content-Type", content_type)]));
            if method != "PATCH" {
                refused(&[("Content-Type", "application/merge-patch+json")]);
            }
        }
    });
}

#[test]
fn json_in_utf8_is_accepted_however_its_type_is_written() {
    let types = [
        "application/json",
        "APPLICATION/Json",
        "application/json; charset=UTF-8",
        "application/json;charset=utf-8",
        "application/json; charset=\"utf-8\"",
        "application/json ; Charset=utf-8; x=y",
    ];
    api(|api| {
        for content_type in types {
            let reply = api.ask("PATCH", "/api/users/1", &[("content-TYPE", content_type)], "{}");
            assert_eq!(reply.status, 200, "{content_type}: {reply:?}");
        }
        let merge_patch = [("Content-Type", "application/merge-patch+json; charset=utf-8")];
        assert_eq!(api.ask("PATCH", "/api/users/1", &merge_patch, "{}").status, 200);
    });
}

#[test]
fn a_compressed_body_is_refused_with_the_coding_that_would_do() {
    api(|api| {
        for coding in ["gzip", "GZIP", "br", "deflate", "zstd", "gzip, identity", "x"] {
            for (method, target) in WRITES {
                let reply = api.ask(method, target, &[JSON, ("Content-Encoding", coding)], "\x1f\u{8b}");
                assert_eq!(reply.problem(415).0, "unsupported-media-type", "{method} {coding}");
                assert_eq!(reply.header("accept-encoding"), Some("identity"), "{method} {coding}");
            }
        }
    });
}

#[test]
fn a_merge_patch_sets_what_it_names_and_can_remove_nothing() {
    api(|api| {
        let patch =
            |body: &str| api.ask("PATCH", "/api/users/1", &[("Content-Type", "application/merge-patch+json")], body);
        let before = api.get("/api/users/1").expect(200);
        assert_eq!(patch("{}").expect(200), before);
        assert_eq!(patch(r#"{"name":"Ada","active":true}"#).expect(200), before, "nothing changes");
        for field in ["name", "email", "active"] {
            assert_eq!(pointers(&patch(&format!("{{\"{field}\":null}}"))), [format!("/{field}")]);
        }
        assert_eq!(pointers(&patch(r#"{"active":false,"name":null}"#)), ["/name"]);
        assert_eq!(api.get("/api/users/1").expect(200), before, "all or nothing");

        let after = patch(r#"{"active":false}"#).expect(200);
        for field in ["id", "name", "email", "created_at"] {
            assert_eq!(after[field], before[field]);
        }
        assert_eq!(after["active"], false);
    });
}

#[test]
fn a_replacement_needs_every_field() {
    api(|api| {
        let before = api.get("/api/users/1").expect(200);
        for field in ["name", "email", "active"] {
            let mut whole = json!({"name": "Bob", "email": "bob@x.org", "active": false});
            whole.as_object_mut().unwrap().remove(field);
            let reply = api.write("PUT", "/api/users/1", whole.to_string());
            assert_eq!(pointers(&reply), [format!("/{field}")]);
        }
        let same = json!({"name": "Ada", "email": "ada@example.org", "active": true}).to_string();
        assert_eq!(api.write("PUT", "/api/users/1", same).expect(200), before, "nothing changes");
    });
}

#[test]
fn query_parameters_that_are_unknown_repeated_or_out_of_range_are_named() {
    let huge = format!("page_size={}", "9".repeat(400));
    let cases = [
        ("unknown=1", "unknown"),
        ("Active=true", "Active"),
        ("active[]=true", "active[]"),
        ("pagesize=1", "pagesize"),
        ("=1", "\"\""),
        ("page_size=1&page_size=1", "page_size"),
        ("active=true&page_size=1&active=true", "active"),
        ("active=true&%61ctive=true", "active"),
        ("page_size=", "page_size"),
        ("page_size", "page_size"),
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("page_size=-1", "page_size"),
        ("page_size=+1", "page_size"),
        ("page_size=01", "page_size"),
        ("page_size=abc", "page_size"),
        ("page_size=1e1", "page_size"),
        ("page_size=1.0", "page_size"),
        ("page_size=%2010", "page_size"),
        ("page_size=18446744073709551617", "page_size"),
        (huge.as_str(), "page_size"),
        ("active=", "active"),
        ("active", "active"),
        ("active=1", "active"),
        ("active=TRUE", "active"),
        ("active=null", "active"),
        ("active=true%00", "active"),
        ("email=", "email"),
        ("email=nobody", "email"),
        ("email=a+b@x.org", "email"),
        ("email=a%00@x.org", "email"),
        ("email=%FF@x.org", "email"),
    ];
    api(|api| {
        for (query, name) in cases {
            assert_refuses_parameter(api, "GET", &format!("/api/users?{query}"), name);
        }
        for (method, target) in WRITES.iter().chain(&[("GET", "/api/users/1"), ("DELETE", "/api/users/1")]) {
            for (query, name) in [("x=1", "x"), ("active=true", "active"), ("dry_run", "dry_run")] {
                assert_refuses_parameter(api, method, &format!("{target}?{query}"), name);
            }
        }
        for query in ["", "&", "&&page_size=1&", "page_size=100", "page_size=%31"] {
            assert_eq!(api.get(&format!("/api/users?{query}")).status, 200, "{query}");
        }
        assert_eq!(api.get("/api/users/1?").status, 200);
    });
}

fn assert_refuses_parameter(api: &Api, method: &str, target: &str, name: &str) {
    let reply = api.write(method, target, user_with("active", "true"));
    assert_eq!(reply.status, 400, "{method} {target} {reply:?}");
    let (kind, detail) = reply.problem(400);
    assert_eq!(kind, "invalid-parameter", "{method} {target}");
    assert!(detail.contains(name), "{method} {target}: {detail}");
}

#[test]
fn a_page_token_is_one_of_ours_with_the_filters_it_was_given_for() {
    api(|api| {
        for n in 0..6 {
            let body = json!({"name": "n", "email": format!("u{n}@x.org"), "active": n % 2 == 0}).to_string();
            api.post(body).expect(201);
        }
        let token = |query: &str| {
            let page = api.get(&format!("/api/users?page_size=1{query}")).expect(200);
            page["next_page_token"].as_str().unwrap().to_owned()
        };
        let (all, active, inactive) = (token(""), token("&active=true"), token("&active=false"));
        let mut bad: Vec<String> = [
            format!("page_token={all}&active=true"),
            format!("page_token={all}&active=false"),
            format!("page_token={active}"),
            format!("page_token={active}&active=false"),
            format!("page_token={inactive}&active=true"),
            format!("page_token={inactive}"),
            format!("page_token={all}&email=ada@example.org"),
            format!("page_token={active}&active=true&email=ada@example.org"),
        ]
        .into();
        let long = "A".repeat(8000);
        for text in ["", "0", "1", "abc", "null", "%00", "%FF", "====", "YWxs", "all:1", "../..", "🦀", &long] {
            bad.push(format!("page_token={}", text.replace('🦀', "%F0%9F%A6%80")));
        }
        for text in [format!("{all}A"), format!("{all}%3D"), all[1..].into(), all[..all.len() - 1].into()] {
            bad.push(format!("page_token={text}"));
        }
        for query in bad {
            assert_refuses_parameter(api, "GET", &format!("/api/users?{query}"), "page_token");
        }
        // The size is no filter: it may change from page to page.
        let rest = api.get(&format!("/api/users?page_token={all}&page_size=100")).expect(200);
        assert_eq!(ids(&rest), [2, 3, 4, 5, 6, 7]);
    });
}

fn ids(page: &Value) -> Vec<u64> {
    page["users"].as_array().unwrap().iter().map(|user| user["id"].as_u64().unwrap()).collect()
}

#[test]
fn the_link_to_the_next_page_keeps_the_filters() {
    api(|api| {
        for n in 0..10 {
            let body = json!({"name": "n", "email": format!("u{n}@x.org"), "active": n % 2 == 0}).to_string();
            api.post(body).expect(201);
        }
        for (filter, expected) in [("true", vec![1, 2, 4, 6, 8, 10]), ("false", vec![3, 5, 7, 9, 11])] {
            let mut path = format!("/api/users?active={filter}&page_size=2");
            let mut seen = Vec::new();
            loop {
                let reply = api.get(&path);
                let page = reply.expect(200);
                assert!(page["users"].as_array().unwrap().len() <= 2, "{page}");
                seen.extend(ids(&page));
                let Some(link) = reply.header("link") else { break };
                path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().into();
            }
            assert_eq!(seen, expected);
        }
    });
}

#[test]
fn users_are_found_by_their_address_in_any_case_and_encoding() {
    api(|api| {
        api.post(wire::user("José+x@Exämple.org")).expect(201);
        let found = |email: &str| ids(&api.get(&format!("/api/users?email={email}")).expect(200));
        for email in ["ada@example.org", "ADA@EXAMPLE.ORG", "Ada%40Example.Org"] {
            assert_eq!(found(email), [1], "{email}");
        }
        for email in
            ["Jos%C3%A9%2Bx@Ex%C3%A4mple.org", "JOS%C3%89%2BX@EX%C3%84MPLE.ORG", "jose%CC%81%2bx@exa%CC%88mple.org"]
        {
            assert_eq!(found(email), [2], "{email}");
        }
        for email in
            ["jose%2Bx@Ex%C3%A4mple.org", "ada@example.or", "nobody@example.org", "*@example.org", "%25@example.org"]
        {
            assert_eq!(found(email), [0; 0], "{email}");
        }
        assert_eq!(found("ada@example.org&active=true&page_size=1"), [1]);
        assert_eq!(found("ada@example.org&active=false"), [0; 0]);
    });
}

#[test]
fn a_method_that_a_route_does_not_have_is_answered_with_those_it_has() {
    api(|api| {
        for (path, allowed) in ROUTES {
            for method in METHODS.iter().filter(|method| !allowed.contains(method)) {
                let reply = api.write(method, path, "{}");
                assert_eq!(reply.problem(405).0, "method-not-allowed", "{method} {path}");
                assert_eq!(allow(&reply), *allowed, "{method} {path}");
            }
        }
    });
}

fn allow(reply: &Reply) -> Vec<&str> {
    reply.header("allow").unwrap_or_else(|| panic!("no Allow: {reply:?}")).split(", ").collect()
}

#[test]
fn a_path_that_leads_nowhere_is_not_found_by_any_method() {
    let long = format!("/{}", "a/".repeat(1000));
    let paths = [
        "/",
        "/api",
        "/api/",
        "/api/users/",
        "/api/users/1/",
        "/api/users/1/x",
        "/api//users",
        "//api/users",
        "/API/users",
        "/api/Users",
        "/api/users%2F1",
        "/%61pi/users",
        "/api/users.json",
        "/livez/",
        "/../livez",
        "/api/../livez",
        "/index.html",
        "/favicon.ico",
        &long,
    ];
    api(|api| {
        for path in paths {
            for method in METHODS.iter().filter(|method| **method != "HEAD") {
                let reply = api.write(method, path, "{}");
                assert_eq!(reply.status, 404, "{method} {path} {reply:?}");
                assert_eq!(reply.problem(404).0, "no-such-resource", "{method} {path}");
            }
        }
    });
}

#[test]
fn head_is_get_without_the_body() {
    let paths = ["/api/users", "/api/users?page_size=1", "/api/users/1", "/api/health", "/livez", "/readyz"];
    let wrong = ["/", "/api/users/2", "/api/users/0", "/api/users?page_size=0", "/livez/"];
    let described = |mut reply: Reply| {
        reply.headers.retain(|(name, _)| name != "date");
        reply.headers.sort();
        (reply.status, reply.headers)
    };
    api(|api| {
        api.post(wire::user("b@x.org")).expect(201);
        for path in paths.iter().chain(&wrong) {
            let get = api.get(path);
            assert_eq!(get.header("content-length").unwrap(), get.body.len().to_string(), "{path}");
            let mut connection = api.0.connect();
            connection.send(wire::request("HEAD", path, &[], "")).unwrap();
            let head = connection.reply_head().unwrap();
            assert_eq!(described(head), described(get), "{path}");
            // What comes next on the connection is the next answer, not a body.
            assert_eq!(connection.request(wire::get("/livez")).unwrap().body, "OK", "{path}");
        }
    });
}

#[test]
fn options_says_what_a_route_allows() {
    api(|api| {
        for (path, allowed) in ROUTES {
            for body in ["", "{}"] {
                let reply = api.ask("OPTIONS", path, &[], body);
                assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{path}");
                assert_eq!(reply.header("content-length"), None, "{path}: RFC 9110 §8.6");
                assert_eq!(allow(&reply), *allowed, "{path}");
            }
        }
        assert_eq!(api.ask("OPTIONS", "*", &[], "").status, 204);
    });
}

#[test]
fn a_request_line_that_is_none_is_malformed() {
    let lines = [
        "GET",
        "GET /livez",
        "/livez HTTP/1.1",
        "GET  /livez HTTP/1.1",
        "GET /livez  HTTP/1.1",
        " GET /livez HTTP/1.1",
        "G@T /livez HTTP/1.1",
        "GE\tT /livez HTTP/1.1",
        "GET /li vez HTTP/1.1",
        "GET /livez HTTP/1.2",
        "GET /livez HTTP/3.0",
        "GET /livez http/1.1",
        "GET /livez HTTP/1.1 x",
        "GET /livez\u{7f} HTTP/1.1",
        "GET http:///livez HTTP/1.1",
    ];
    api(|api| {
        for line in lines {
            assert_eq!(api.send(format!("{line}\r\nHost: x\r\n\r\n")).status, 400, "{line}");
        }
    });
}

/// RFC 9112 §3.2: a target begins with a slash, is a whole URL, or is the asterisk of OPTIONS; host
/// and port alone are for CONNECT, which is for proxies.
#[test]
fn a_target_in_no_form_that_its_method_has_is_malformed() {
    api(|api| {
        none_wrong(["GET livez", "GET x:80", "GET ://x/livez", "POST x", "OPTIONS x:80"], |line| {
            let status = api.send(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).status;
            (status != 400).then(|| format!("{line}: {status}"))
        });
        for line in ["GET *", "POST *", "CONNECT x:80"] {
            assert!((400..500).contains(&api.send(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).status), "{line}");
        }
    });
}

/// Numbers that look random and are the same in each run (xorshift64), so that failures can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len())]
    }

    /// Changes a few places of a request.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const PIECES: &[&[u8]] = &[
            b"\r\n",
            b"\n",
            b"\r\n\r\n",
            b"\0",
            b" ",
            b":",
            b"\"",
            b"\\u0000",
            b"\xff",
            b"\xf0\x9f\xa6\x80",
            b"%",
            b"%00",
            b"&",
            b"?",
            b"/",
            b"-1",
            b"99999999999999999999",
            b"1e999",
            b"[[[[[[[[[[[[[[[[",
            b"{\"a\":",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        for _ in 0..=self.below(6) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.remove(at)),
                2 => drop(bytes.splice(at..at, self.pick(PIECES).iter().copied())),
                3 => {
                    let end = at + self.below((bytes.len() - at).min(40));
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    drop(bytes.splice(to..to, piece));
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
    }
}

#[test]
fn nothing_that_two_thousand_mutated_requests_say_is_an_error_of_ours() {
    const REQUESTS: usize = 2000;
    let valid = [
        wire::get("/api/users?active=true&email=ada%40example.org&page_size=10"),
        wire::get("/api/users/1"),
        wire::post(wire::user("fuzz@x.org")),
        wire::post_framed(
            &["Transfer-Encoding: chunked"],
            "5;a=b\r\n{\"nam\r\n4\r\ne\":1\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n",
        ),
        wire::request("PUT", "/api/users/1", &[JSON], user_with("active", "false")),
        wire::request("PATCH", "/api/users/1", &[JSON, ("Expect", "100-continue")], "{\"name\":\"\\ud83e\\udd80\"}"),
        wire::request("DELETE", "/api/users/2", &[("If-Match", "*")], ""),
        [wire::get("/livez"), wire::post("{}"), wire::request("OPTIONS", "*", &[], "")].concat(),
    ];
    api(|api| {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut statuses = std::collections::BTreeMap::<String, usize>::new();
        let ask = |bytes: &[u8]| {
            let mut connection: Raw = api.0.connect();
            connection.send(bytes).unwrap();
            connection.half_close().unwrap();
            connection.rest().unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
        };
        valid.iter().for_each(|bytes| drop(ask(bytes)));
        let before = api.0.at_rest();
        for _ in 0..REQUESTS {
            let mut bytes = valid[random.below(valid.len())].clone();
            random.mutate(&mut bytes);
            let answer = ask(&bytes);
            assert!(!answer.contains("HTTP/1.1 5"), "{}\n{answer}", bytes.escape_ascii());
            *statuses.entry(answer.chars().skip(9).take(3).collect()).or_default() += 1;
        }
        // A fuzzer that only finds one answer finds nothing.
        assert!(statuses.len() >= 8, "{statuses:?}");
        let grown = api.0.usage().memory_kib.saturating_sub(before.memory_kib);
        assert!(grown < 32 << 10, "{grown} KiB more");
        api.0.at_rest();
    });
}
