//! What is called, and what has to come of it. Codes are the official extension's: 1 an argument, 3 memory, 4 the run.

use wasmedge_tensorflow_interface::TFLiteSession;

use crate::extension::{append, create, data, delete, len, memory_bytes, output, raw, run};

/// A model with one input and one output, and one with two of each.
pub struct Models {
    pub digits: Vec<u8>,
    pub diabetes: Vec<u8>,
}

/// The names and sizes that the models have; a manifest beside each says the same.
pub const PIXELS: &str = "serving_default_pixels:0";
pub const PIXELS_BYTES: usize = 8 * 8 * 4;
const PROBABILITIES: &str = "StatefulPartitionedCall:0";
const PROBABILITIES_BYTES: u32 = 10 * 4;
const PERSON: &str = "serving_default_person:0";
const PERSON_BYTES: usize = 4 * 4;
const SERUM: &str = "serving_default_serum:0";
const SERUM_BYTES: usize = 6 * 4;

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&Models));

pub const ALL: [Case; 11] = [
    ("a session of the crate", crate_session),
    ("a run from end to end", end_to_end),
    ("a run before any input", before_input),
    ("addresses and lengths of no memory", no_memory),
    ("memory that ends too early", end_of_memory),
    ("names that nothing has", unknown_names),
    ("data of a wrong size", wrong_sizes),
    ("handles of nothing", wrong_handles),
    ("models that are none", damaged_models),
    ("many sessions", many_sessions),
    ("several rows", several_rows),
];

fn pixels(seed: u8) -> Vec<u8> {
    (0..64_u8).flat_map(|place| (f32::from(place.wrapping_mul(seed) % 17) / 16.0).to_le_bytes()).collect()
}

fn probabilities(session: u32) -> Vec<u8> {
    let tensor = output(session, PROBABILITIES).unwrap();
    let mut bytes = vec![0; len(session, tensor).unwrap() as usize];
    assert_eq!(data(session, tensor, &mut bytes), Ok(bytes.len() as u32));
    bytes
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn crate_session(models: &Models) {
    let mut session = TFLiteSession::new(&models.digits);
    session.add_input(PIXELS, &floats(&pixels(3))).run();
    let sum: f32 = session.get_output::<f32>(PROBABILITIES).iter().sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

fn end_to_end(models: &Models) {
    let session = create(&models.digits).unwrap();
    append(session, PIXELS, &pixels(3)).unwrap();
    run(session).unwrap();
    let first = probabilities(session);
    append(session, PIXELS, &pixels(5)).unwrap();
    assert_eq!(probabilities(session), first, "nothing changes before a run");
    run(session).unwrap();
    assert_ne!(probabilities(session), first);
    delete(session).unwrap();
}

fn before_input(models: &Models) {
    let session = create(&models.digits).unwrap();
    run(session).unwrap();
    let first = probabilities(session);
    append(session, PIXELS, &[0; PIXELS_BYTES]).unwrap();
    run(session).unwrap();
    assert_eq!(probabilities(session), first, "inputs are zeros at first");
    delete(session).unwrap();
}

fn no_memory(models: &Models) {
    let session = create(&models.digits).unwrap();
    let tensor = output(session, PROBABILITIES).unwrap();
    let mut bytes = [0_u8; PROBABILITIES_BYTES as usize];
    let (here, room) = (bytes.as_mut_ptr() as usize as u32, PROBABILITIES_BYTES);
    let (name, name_length) = (PROBABILITIES.as_ptr() as usize as u32, PROBABILITIES.len() as u32);
    let (model, model_length) = (models.digits.as_ptr() as usize as u32, models.digits.len() as u32);
    let end = memory_bytes();
    for beyond in [end, end + 1, end - 3, u32::MAX, u32::MAX - 3, 1 << 31] {
        assert_eq!(raw::create_session(model, model_length, beyond), 3, "{beyond}");
        assert_eq!(raw::get_output_tensor(session, name, name_length, beyond), 3);
        assert_eq!(raw::get_tensor_len(session, tensor, beyond), 3);
        assert_eq!(raw::get_tensor_data(session, tensor, here, room, beyond), 3);
        assert_eq!(raw::create_session(beyond, model_length, here), 3);
        assert_eq!(raw::get_output_tensor(session, beyond, name_length, here), 3);
        assert_eq!(raw::get_tensor_data(session, tensor, beyond, room, here), 3);
        assert_eq!(raw::append_input(session, beyond, name_length, here, room), 3);
        assert_eq!(raw::append_input(session, name, name_length, beyond, room), 3);
    }
    for too_long in [end, u32::MAX, 1 << 31, u32::MAX - here, u32::MAX - here + 1] {
        assert_eq!(raw::create_session(model, too_long, here), 3, "{too_long}");
        assert_eq!(raw::get_output_tensor(session, name, too_long, here), 3);
        assert_eq!(raw::get_tensor_data(session, tensor, here, too_long, here), 3);
        assert_eq!(raw::append_input(session, name, too_long, here, room), 3);
        assert_eq!(raw::append_input(session, name, name_length, here, too_long), 3);
    }
    // Null is an address like any other in a guest; what is there is no model and no name.
    assert_eq!(raw::create_session(0, 0, here), 1);
    assert_eq!(raw::create_session(0, 64, here), 1);
    assert_eq!(raw::get_output_tensor(session, 0, 0, here), 1);
    assert_eq!(raw::append_input(session, 0, 0, 0, 0), 1);
    delete(session).unwrap();
}

fn end_of_memory(models: &Models) {
    let session = create(&models.digits).unwrap();
    let name = (PIXELS.as_ptr() as usize as u32, PIXELS.len() as u32);
    let (end, bytes) = (memory_bytes(), PIXELS_BYTES as u32);
    assert_eq!(raw::append_input(session, name.0, name.1, end - bytes, bytes), 0, "up to the last byte");
    for missing in 1..=bytes {
        assert_eq!(raw::append_input(session, name.0, name.1, end - bytes + missing, bytes), 3, "{missing}");
    }
    assert_eq!(raw::append_input(session, name.0, name.1, end, 0), 1, "nothing, where the memory ends");
    run(session).unwrap();
    delete(session).unwrap();
}

fn unknown_names(models: &Models) {
    let session = create(&models.digits).unwrap();
    for name in ["", "x", PIXELS, "StatefulPartitionedCall:0\0", "\u{fe}\u{ff}"] {
        assert_eq!(output(session, name), Err(1), "{name}");
    }
    for name in ["", "x", PROBABILITIES, &PIXELS[1..], &format!("{PIXELS} ")] {
        assert_eq!(append(session, name, &pixels(1)), Err(1), "{name}");
    }
    assert_eq!(output(session, &"x".repeat(100_000)), Err(1));
    delete(session).unwrap();
}

fn wrong_sizes(models: &Models) {
    let session = create(&models.digits).unwrap();
    for bytes in [0, 1, PIXELS_BYTES - 1, PIXELS_BYTES + 1, PIXELS_BYTES * 2 - 4, PIXELS_BYTES * 1025] {
        assert_eq!(append(session, PIXELS, &vec![0; bytes]), Err(1), "{bytes}");
    }
    run(session).unwrap();
    let tensor = output(session, PROBABILITIES).unwrap();
    for bytes in [0, 1, 39, 41, 400] {
        assert_eq!(data(session, tensor, &mut vec![7; bytes]), Err(1), "{bytes}");
    }
    assert_eq!(len(session, tensor), Ok(PROBABILITIES_BYTES));
    delete(session).unwrap();
}

fn wrong_handles(models: &Models) {
    let session = create(&models.digits).unwrap();
    let other = create(&models.diabetes).unwrap();
    let tensor = output(session, PROBABILITIES).unwrap();
    run(session).unwrap();
    let mut bytes = [0; PROBABILITIES_BYTES as usize];
    for invented in [0, other + 1, 1 << 20, u32::MAX] {
        assert_eq!((delete(invented), run(invented)), (Err(1), Err(1)), "{invented}");
        assert_eq!(append(invented, PIXELS, &pixels(1)), Err(1));
        assert_eq!(output(invented, PROBABILITIES), Err(1));
        assert_eq!((len(invented, tensor), data(invented, tensor, &mut bytes)), (Err(1), Err(1)));
    }
    for invented in [0, 1, tensor + 1, tensor ^ (1 << 31), u32::MAX] {
        assert_eq!((len(session, invented), data(session, invented, &mut bytes)), (Err(1), Err(1)), "{invented}");
    }
    assert_eq!(len(other, tensor), Err(1), "a tensor of another session");
    delete(session).unwrap();
    assert_eq!((delete(session), run(session), len(session, tensor)), (Err(1), Err(1), Err(1)), "stale");
    let new = create(&models.digits).unwrap();
    assert_eq!((run(session), len(new, tensor)), (Err(1), Err(1)), "still stale");
    delete(new).unwrap();
    delete(other).unwrap();
}

fn damaged_models(models: &Models) {
    let model = &models.digits;
    for bytes in [0, 1, 7, 8, 100, model.len() / 2] {
        assert_eq!(create(&model[..bytes]), Err(1), "cut to {bytes}");
    }
    for byte in [0, 1, 255] {
        assert_eq!(create(&vec![byte; 5000]), Err(1), "all {byte}");
    }
    let mut changed = model.clone();
    changed[4] = b'X';
    assert_eq!(create(&changed), Err(1), "another kind of file");
    // What a root offset leads to.
    for offset in [0_u32, 3, u32::MAX, model.len() as u32] {
        changed = model.clone();
        changed[..4].copy_from_slice(&offset.to_le_bytes());
        assert_eq!(create(&changed), Err(1), "{offset}");
    }
}

fn many_sessions(models: &Models) {
    let sessions: Vec<u32> = (0..50).map(|_| create(&models.digits).unwrap()).collect();
    let mut expected = None;
    for session in &sessions {
        append(*session, PIXELS, &pixels(7)).unwrap();
        run(*session).unwrap();
        assert_eq!(*expected.get_or_insert_with(|| probabilities(*session)), probabilities(*session));
    }
    for session in sessions {
        delete(session).unwrap();
    }
}

fn several_rows(models: &Models) {
    let session = create(&models.digits).unwrap();
    let rows: Vec<Vec<u8>> = (1..=5).map(pixels).collect();
    let alone: Vec<f32> = rows.iter().flat_map(|row| alone(session, row)).collect();
    append(session, PIXELS, &rows.concat()).unwrap();
    run(session).unwrap();
    let together = floats(&probabilities(session));
    assert_eq!(together.len(), alone.len());
    assert!(together.iter().zip(&alone).all(|(one, other)| (one - other).abs() < 1e-5), "{together:?} {alone:?}");
    assert_eq!(floats(&probabilities(session)).len(), 50);
    assert_eq!(self::alone(session, &rows[0]).len(), 10, "and back to one");
    delete(session).unwrap();

    let session = create(&models.diabetes).unwrap();
    append(session, PERSON, &[0; PERSON_BYTES * 3]).unwrap();
    assert_eq!(run(session), Err(1), "three rows and one");
    append(session, SERUM, &[0; SERUM_BYTES * 3]).unwrap();
    run(session).unwrap();
    delete(session).unwrap();
}

fn alone(session: u32, row: &[u8]) -> Vec<f32> {
    append(session, PIXELS, row).unwrap();
    run(session).unwrap();
    floats(&probabilities(session))
}
