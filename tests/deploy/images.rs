//! The images: built by buildah from the Dockerfile, once for all tests, and what must be in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use harness::artifacts;
use serde_json::Value;

use crate::node::{Node, outside};

/// As the overlays call them, so that what is rendered can be played as it is.
pub const WASM: &str = "registry.example/usher-wasm:0.1.0";
pub const HOST: &str = "registry.example/usher:0.1.0";
pub const BASE: &str = "docker.io/library/debian:trixie-slim";
/// As compose.yaml calls it.
const COMPOSE: &str = "docker.io/library/usher:0.1.0";
pub const MYSQL: &str = "docker.io/library/mysql:9.7";

/// What holds a pod's namespaces, where an engine needs a container for that.
pub const PAUSE: &str = "localhost/pause:1";

/// Somebody else's image that we refer to. There is no registry in tests, so another stands in for it.
struct StandIn {
    image: &'static str,
    /// Below `tests/deploy`.
    folder: &'static str,
    made_from: fn() -> PathBuf,
}

const STAND_INS: [StandIn; 2] = [
    StandIn { image: MYSQL, folder: "mysql", made_from: artifacts::mysql },
    StandIn { image: "docker.io/prom/prometheus:v3.5.0", folder: "prometheus", made_from: artifacts::prometheus },
];

/// In bytes.
const MAX_WASM: u64 = 5_000_000;
const MAX_HOST: u64 = 120_000_000;

/// The folder that holds all images, once they are built; nothing where there can be no node.
static IMAGES: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let node = Node::start()?;
    let base = format!("--build-context=base={}", outside(&artifacts::node()?.join("base")));
    let base = ["buildah", "build", "--timestamp=0", &base, &format!("--tag={BASE}"), "--file=-"];
    node.run_with_input(&base, "FROM scratch\nCOPY --from=base . /\nCMD [\"bash\"]\n");
    build(&node, "wasm", WASM);
    build(&node, "host", HOST);
    node.run(&["podman", "tag", HOST, COMPOSE]);
    for StandIn { image, folder, made_from } in STAND_INS {
        let folder = checkout(&format!("tests/deploy/{folder}"));
        let files = format!("--build-context=files={}", outside(&made_from()));
        node.run(&["buildah", "build", &files, &format!("--tag={image}"), &folder]);
    }
    let pause = ["buildah", "build", "--timestamp=0", "--build-context=programs=/usr/bin", "--tag", PAUSE, "--file=-"];
    node.run_with_input(
        &pause,
        "FROM scratch\nCOPY --from=programs catatonit /pause\nENTRYPOINT [\"/pause\", \"-P\"]\n",
    );
    let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    let _ = fs::remove_dir_all(&store);
    fs::rename(node.containers().join("storage"), &store).unwrap();
    Some(store)
});

/// A path of the checkout, as the node sees it.
fn checkout(path: &str) -> String {
    outside(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap().join(path))
}

/// Builds a target of our Dockerfile. The stages that compile are replaced by what they would make: they take half an
/// hour and a registry. The rest is built as it is.
fn build(node: &Node, target: &str, tag: &str) -> String {
    let made = artifacts::image_files().parent().unwrap().to_path_buf();
    let files = format!("--build-context={target}-files={}", outside(&made));
    let (target_option, tag) = (format!("--target={target}"), format!("--tag={tag}"));
    let mut words =
        vec!["buildah", "build", "--no-cache", "--layers", "--timestamp=0", "--quiet", &files, &target_option, &tag];
    // HEALTHCHECK is no part of OCI's format.
    words.extend(["--format=docker", "--build-arg=REVISION=tested"]);
    if target == "wasm" {
        words.push("--platform=wasi/wasm");
    }
    let (file, context) = (format!("--file={}", checkout("Dockerfile")), checkout("k8s"));
    words.extend([file.as_str(), context.as_str()]);
    node.run(&words).trim().to_owned()
}

/// A node that has all images; nothing where there can be none.
pub fn node() -> Option<Node> {
    let store = IMAGES.as_ref()?;
    let node = Node::start()?;
    node.write(
        "/etc/containers/storage.conf",
        &format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\n\
             graphroot = \"/var/lib/containers/storage\"\n[storage.options]\nadditionalimagestores = [\"{}\"]\n",
            outside(store)
        ),
    );
    Some(node)
}

fn inspect(node: &Node, image: &str) -> Value {
    let text = node.run(&["podman", "image", "inspect", image]);
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

/// What a script says of an image's files, run in their root folder.
fn look_into(node: &Node, image: &str, script: &str) -> String {
    // Images in a store that others share cannot be mounted, containers of them can.
    node.shell(&format!(
        "container=$(podman create --quiet {image}); cd $(podman mount $container); {script}; cd /; podman rm $container >/dev/null"
    ))
}

/// All files in an image.
fn files_in(node: &Node, image: &str) -> Vec<String> {
    let files = look_into(node, image, "find . ! -type d | sort");
    files.lines().map(|file| file.trim_start_matches('.').to_owned()).collect()
}

fn assert_labels(image: &Value, title: &str) {
    let label = |name: &str| image["Config"]["Labels"][format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(label("title"), title);
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("revision"), "tested");
    assert!(label("description").as_str().is_some_and(|text| text.len() > 20), "{image}");
}

#[test]
fn the_wasm_image_is_the_module_and_nothing_else() {
    let Some(node) = node() else { return };
    let image = inspect(&node, WASM);
    assert_eq!((&image["Os"], &image["Architecture"]), (&"wasi".into(), &"wasm".into()));
    assert_eq!(image["User"], "65532:65532");
    assert_eq!(image["Config"]["Entrypoint"], serde_json::json!(["/service.wasm"]));
    assert_labels(&image, "Usher, the module");
    assert_eq!(files_in(&node, WASM), ["/service.wasm"]);
    let size = image["Size"].as_u64().unwrap();
    println!("the wasm image: {size} bytes");
    assert!(size < MAX_WASM, "{size}");
}

#[test]
fn the_host_image_holds_what_serving_needs() {
    let Some(node) = node() else { return };
    let image = inspect(&node, HOST);
    assert_eq!(image["User"], "65532:65532");
    assert_eq!(image["Config"]["Entrypoint"], serde_json::json!(["/opt/usher/bin/usher"]));
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["serve"]));
    assert_eq!(image["Healthcheck"]["Test"], serde_json::json!(["CMD", "/opt/usher/bin/usher", "health"]));
    assert_labels(&image, "Usher");
    let bases = files_in(&node, BASE);
    let ours: Vec<String> = files_in(&node, HOST).into_iter().filter(|file| !bases.contains(file)).collect();
    let expected = ["/opt/usher/bin/usher", "/opt/usher/bin/usher-engine", "/opt/usher/service.so"];
    for file in expected {
        assert!(ours.iter().any(|own| own == file), "no {file} in {ours:?}");
    }
    let folders = ["bin/usher", "lib/", "models/", "plugin/", "service.so"];
    let stray = |file: &&String| !folders.iter().any(|folder| file.starts_with(&format!("/opt/usher/{folder}")));
    assert_eq!(ours.iter().filter(stray).collect::<Vec<_>>(), Vec::<&String>::new());
    let size = image["Size"].as_u64().unwrap();
    let (base, own) = (inspect(&node, BASE)["Size"].as_u64().unwrap(), account(&node));
    println!("the host image: {size} bytes, {base} of them the base image's; in /opt/usher:\n{own}");
    assert!(size < MAX_HOST, "{size}");
}

/// What takes the space of the host's own files.
fn account(node: &Node) -> String {
    look_into(node, HOST, "cd opt/usher; du -ab --max-depth=2 . | sort -rn > /tmp/sizes; head -20 /tmp/sizes")
}

#[test]
fn the_same_files_make_the_same_images() {
    let Some(node) = node() else { return };
    // The image's own name has times and names of the machine in it; layers and configuration are what counts.
    let content = |image: &str| {
        let image = inspect(&node, image);
        (image["RootFS"].clone(), image["Config"].clone())
    };
    for (target, image) in [("wasm", WASM), ("host", HOST)] {
        build(&node, target, "localhost/again");
        assert_eq!(content("localhost/again"), content(image), "{target}");
    }
}

#[test]
fn the_images_say_who_they_are() {
    let Some(node) = node() else { return };
    let version = env!("CARGO_PKG_VERSION");
    let run = ["podman", "run", "--rm", "--read-only", "--cap-drop=all", "--network=none"];
    let said = node.run(&[&run[..], &[WASM, "--version"]].concat());
    assert_eq!(said.trim(), format!("usher service {version}"));
    let said = node.run(&[&run[..], &[HOST, "--version"]].concat());
    assert!(said.contains(version), "{said}");
    let said = node.run(&[&run[..], &[HOST, "check", "/opt/usher/service.so"]].concat());
    for line in ["serves compiled modules only", "models       by /opt/usher/plugin", "(compiled, "] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn the_host_image_says_that_it_compiles_nothing() {
    let Some(node) = node() else { return };
    let module = format!("--volume={}:/service.wasm:ro", outside(&artifacts::module()));
    let run = ["podman", "run", "--rm", "--network=none", "--env=HOME=/tmp", "--tmpfs=/tmp:mode=1777", &module, HOST];
    for words in [&["compile", "--generic", "-o", "/tmp/service.so", "/service.wasm"][..], &["serve", "/service.wasm"]]
    {
        let output = node.try_run(&[&run[..], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.contains("without a compiler (LLVM)") && said.contains("usher compile --generic"),
            "{words:?}: {said}"
        );
    }
}
