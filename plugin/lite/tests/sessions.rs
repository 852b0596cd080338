//! Sessions of the models that the repository ships, used rightly and wrongly.
#![allow(missing_docs, reason = "test names say it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lite::{MAX_ROWS, Model, Sessions, Wrong};

/// One with floats, one with bytes, one with two inputs and two outputs of floats.
const MODELS: [&str; 3] = ["digits", "digits-int8", "diabetes"];

/// How far results of floats may be apart that were computed in other groups.
const TOLERANCE: f32 = 1e-5;

/// One test at a time: a model is tried out in a forked child, which would find locks of the library taken for ever
/// that another thread held in that moment. A guest has one thread.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file(model: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/{model}/1/model.tflite"))).unwrap()
}

/// A session, its handle, and what the model says of itself.
struct Opened {
    sessions: Sessions,
    handle: u32,
    model: Model,
    is_float: bool,
}

impl Opened {
    fn new(name: &str) -> Self {
        let file = file(name);
        let mut sessions = Sessions::new();
        let handle = sessions.create(&file).unwrap();
        Self { sessions, handle, model: Model::parse(&file).unwrap(), is_float: !name.ends_with("int8") }
    }

    /// Bytes of a row of an input: a value for each element.
    fn row(&self, input: usize, seed: u64) -> Vec<u8> {
        let count: i32 = self.model.inputs[input].shape.iter().product();
        let mut random = fastrand::Rng::with_seed(seed);
        let element = |_| if self.is_float { random.f32().to_le_bytes().to_vec() } else { vec![random.u8(..)] };
        (0..count).flat_map(element).collect()
    }

    /// Gives each input the rows that were made with these seeds.
    fn give(&mut self, seeds: impl Iterator<Item = u64> + Clone) {
        for input in 0..self.model.inputs.len() {
            let data: Vec<u8> = seeds.clone().flat_map(|seed| self.row(input, seed)).collect();
            self.set(input, &data).unwrap();
        }
    }

    fn set(&mut self, input: usize, data: &[u8]) -> Result<(), Wrong> {
        let session = self.sessions.get_mut(self.handle).unwrap();
        let number = session.input_called(&self.model.inputs[input].name).unwrap();
        session.set_input(number, data)
    }

    fn run(&mut self) -> Result<(), Wrong> {
        self.sessions.get_mut(self.handle).unwrap().run()
    }

    /// All outputs.
    fn outputs(&self) -> Vec<Vec<u8>> {
        let session = self.sessions.get(self.handle).unwrap();
        let handle = |output: &lite::Tensor| session.output_called(&output.name).unwrap();
        self.model.outputs.iter().map(|output| session.output(handle(output)).unwrap().to_vec()).collect()
    }

    fn assert_same(&self, one: &[u8], other: &[u8]) {
        assert_eq!(one.len(), other.len());
        if !self.is_float {
            return assert_eq!(one, other);
        }
        for (one, other) in floats(one).zip(floats(other)) {
            assert!((one - other).abs() <= TOLERANCE * one.abs().max(1.0), "{one} and {other}");
        }
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn a_model_runs_and_its_inputs_are_zeros_at_first() {
    let _alone = alone();
    for name in MODELS {
        let mut opened = Opened::new(name);
        let session = opened.sessions.get(opened.handle).unwrap();
        for output in &opened.model.outputs {
            let handle = session.output_called(&output.name).unwrap();
            assert!(session.output_bytes(handle).unwrap() > 0);
            // Nothing of what the memory held before is to be seen.
            assert!(session.output(handle).map_or(true, |bytes| bytes.iter().all(|byte| *byte == 0)), "{name}");
        }
        opened.run().unwrap();
        let at_first = opened.outputs();
        for input in 0..opened.model.inputs.len() {
            let zeros = vec![0; opened.row(input, 0).len()];
            opened.set(input, &zeros).unwrap();
        }
        opened.run().unwrap();
        assert_eq!(opened.outputs(), at_first, "{name}");
        opened.give([7].into_iter());
        opened.run().unwrap();
        assert_ne!(opened.outputs(), at_first, "{name}");
    }
}

#[test]
fn many_rows_give_what_each_gives_alone_and_one_row_can_follow() {
    let _alone = alone();
    for name in MODELS {
        let mut opened = Opened::new(name);
        let mut alone: Vec<Vec<u8>> = vec![Vec::new(); opened.model.outputs.len()];
        for seed in 0..40 {
            opened.give([seed].into_iter());
            opened.run().unwrap();
            for (all, row) in alone.iter_mut().zip(opened.outputs()) {
                all.extend(row);
            }
        }
        for rows in [40, 1, 32, 32, 2, 40] {
            opened.give(0..rows);
            opened.run().unwrap();
            for (output, alone) in opened.outputs().iter().zip(&alone) {
                let expected = &alone[..alone.len() / 40 * usize::try_from(rows).unwrap()];
                opened.assert_same(output, expected);
            }
        }
    }
}

#[test]
fn data_of_another_size_and_unknown_names_are_refused() {
    let _alone = alone();
    let mut opened = Opened::new("digits");
    let row = opened.row(0, 1);
    let too_many = row.repeat(MAX_ROWS + 1);
    for data in [&[][..], &row[1..], &[&row[..], &[0]].concat(), &too_many] {
        assert_eq!(opened.set(0, data), Err(Wrong::Size), "{} bytes", data.len());
    }
    opened.set(0, &row.repeat(MAX_ROWS)).unwrap();
    opened.run().unwrap();
    assert_eq!(opened.outputs()[0].len(), MAX_ROWS * 40, "ten floats a row");
    opened.set(0, &row).unwrap();
    opened.run().unwrap();
    assert_eq!(opened.outputs()[0].len(), 40, "and back to one");
    let session = opened.sessions.get(opened.handle).unwrap();
    assert_eq!(session.input_called(b"pixels of another"), Err(Wrong::Name));
    assert_eq!(session.output_called(b""), Err(Wrong::Name));
    assert_eq!(session.output_called(&opened.model.inputs[0].name), Err(Wrong::Name), "an input is no output");
}

#[test]
fn inputs_with_different_numbers_of_rows_are_refused_until_they_agree() {
    let _alone = alone();
    let mut opened = Opened::new("diabetes");
    let rows: Vec<Vec<u8>> = (0..2).map(|input| opened.row(input, 1)).collect();
    opened.set(0, &rows[0].repeat(3)).unwrap();
    assert_eq!(opened.run(), Err(Wrong::Size));
    opened.set(1, &rows[1].repeat(2)).unwrap();
    assert_eq!(opened.run(), Err(Wrong::Size));
    opened.set(1, &rows[1].repeat(3)).unwrap();
    opened.run().unwrap();
    let three = opened.outputs();
    opened.set(0, &rows[0]).unwrap();
    assert_eq!(opened.run(), Err(Wrong::Size));
    opened.set(1, &rows[1]).unwrap();
    opened.run().unwrap();
    for (one, three) in opened.outputs().iter().zip(&three) {
        opened.assert_same(&one.repeat(3), three);
    }
}

#[test]
fn handles_of_what_is_gone_or_of_others_are_refused() {
    let _alone = alone();
    let file = file("diabetes");
    let mut sessions = Sessions::new();
    let [one, other] = [0; 2].map(|_| sessions.create(&file).unwrap());
    let names = Model::parse(&file).unwrap().outputs;
    let tensor = sessions.get(one).unwrap().output_called(&names[1].name).unwrap();
    assert!(sessions.get(one).unwrap().output(tensor).is_ok());
    assert_eq!(sessions.get(other).unwrap().output(tensor), Err(Wrong::Handle));
    for invented in [0, 1, tensor + 1, u32::MAX] {
        assert_eq!(sessions.get(one).unwrap().output(invented), Err(Wrong::Handle), "{invented}");
    }
    sessions.delete(one).unwrap();
    for gone in [one, 0, other + 1, u32::MAX] {
        assert_eq!(sessions.delete(gone), Err(Wrong::Handle));
        assert_eq!(sessions.get(gone).err(), Some(Wrong::Handle));
        assert_eq!(sessions.get_mut(gone).err(), Some(Wrong::Handle));
    }
    let new = sessions.create(&file).unwrap();
    assert_ne!(new, one, "a handle is not used again");
}

#[test]
fn there_may_be_many_sessions_at_once() {
    let _alone = alone();
    let mut sessions = Sessions::new();
    let file = file("digits");
    let handles: Vec<u32> = (0..100).map(|_| sessions.create(&file).unwrap()).collect();
    for handle in &handles {
        sessions.get_mut(*handle).unwrap().run().unwrap();
    }
    for handle in handles {
        sessions.delete(handle).unwrap();
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let _alone = alone();
    let mut sessions = Sessions::new();
    let model = file("digits");
    let cut = |bytes: usize| model[..bytes].to_vec();
    let files = [vec![], b"not a model".to_vec(), vec![0; 100], vec![255; 100], cut(7), cut(8), cut(model.len() / 2)];
    for file in files {
        assert_eq!(sessions.create(&file), Err(Wrong::Model), "{} bytes", file.len());
    }
}

/// Memory of this process that is in no file, in KiB.
fn memory_kib() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn sessions_that_come_and_go_leave_no_memory_behind() {
    let _alone = alone();
    let mut opened: Vec<Opened> = MODELS.into_iter().map(Opened::new).collect();
    let mut all = |times: u64| {
        for round in 0..times {
            for opened in &mut opened {
                opened.give(0..1 + round % 3);
                opened.run().unwrap();
            }
            for name in MODELS {
                drop(Opened::new(name));
            }
            assert_eq!(Sessions::new().create(&file("digits")[..1000]), Err(Wrong::Model));
        }
    };
    all(20);
    let before = memory_kib();
    all(60);
    let grown = memory_kib().saturating_sub(before);
    // 180 models, of which the smallest has 3 KB: a leak of one thing of each would show.
    assert!(grown < 512, "{grown} KiB more");
}
