//! Images to tensors: decoded within bounds, brought to the size and the numbers that a model takes.

use std::io::Cursor;

use image::imageops::{FilterType, resize};
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};
use thiserror::Error;

use super::tensor::{DataType, Normalization, Signature, TensorSpec};

/// Pixels of an image along a side at most.
const SIDE_MAX: u32 = 4096;

/// Pixels of an image at most: decoding it keeps everything else waiting.
const PIXELS_MAX: u64 = 4 << 20;

/// Bytes that decoding may take beside the image.
const DECODER_BYTES_MAX: u64 = 48 << 20;

/// How pixels become numbers where the manifest does not say it: from 0 to 1.
const UNIT: Normalization = Normalization { mean: 0.0, std: 255.0 };

/// Why an image is no input.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InputError {
    /// It is neither PNG nor JPEG.
    #[error("send a PNG or a JPEG image")]
    UnknownFormat,
    /// It is damaged, or has something that the decoder does not have.
    #[error("the image cannot be decoded: {0}")]
    Damaged(String),
    /// It would take too long to decode.
    #[error("the image may have at most {SIDE_MAX} pixels along a side and {PIXELS_MAX} in all")]
    TooLarge,
    /// The model is for something else.
    #[error("the model takes no images: it needs one input of height, width, and 1 or 3 channels")]
    NoImageModel,
}

/// The input of a model that takes one image at a time.
#[derive(Debug, Clone, Copy)]
pub struct ImageInput<'a> {
    spec: &'a TensorSpec,
    height: u32,
    width: u32,
    is_grey: bool,
}

impl<'a> ImageInput<'a> {
    /// How images go into a model.
    ///
    /// # Errors
    /// If it takes something else.
    pub fn of(signature: &'a Signature) -> Result<Self, InputError> {
        let [spec] = signature.inputs.as_slice() else { return Err(InputError::NoImageModel) };
        let is_one = matches!(spec.data_type, DataType::Fp32 | DataType::Uint8 | DataType::Int8);
        let dimensions = match spec.shape.dimensions.as_slice() {
            [1, rest @ ..] if rest.len() == 3 && !spec.shape.has_rows => rest,
            all => all,
        };
        let side = |size: usize| u32::try_from(size).ok().filter(|size| *size <= SIDE_MAX);
        match *dimensions {
            [height, width, channels @ (1 | 3)] if is_one => {
                let (height, width) = side(height).zip(side(width)).ok_or(InputError::NoImageModel)?;
                Ok(Self { spec, height, width, is_grey: channels == 1 })
            }
            _ => Err(InputError::NoImageModel),
        }
    }

    /// The tensor that an image becomes. An alpha channel is left out.
    ///
    /// # Errors
    /// See [`InputError`].
    pub fn read(self, file: &[u8]) -> Result<Vec<u8>, InputError> {
        let image = decode(file)?;
        let (width, height) = (self.width, self.height);
        let pixels = match self.is_grey {
            true => resize(&image.into_luma8(), width, height, FilterType::Triangle).into_raw(),
            false => resize(&image.into_rgb8(), width, height, FilterType::Triangle).into_raw(),
        };
        Ok(self.tensor(&pixels))
    }

    fn tensor(self, pixels: &[u8]) -> Vec<u8> {
        let Normalization { mean, std } = self.spec.normalization.unwrap_or(UNIT);
        let value = |pixel: &u8| (f32::from(*pixel) - mean) / std;
        match (self.spec.data_type, self.spec.quantization) {
            (DataType::Fp32, _) => pixels.iter().flat_map(|pixel| value(pixel).to_le_bytes()).collect(),
            (DataType::Uint8, None) => pixels.to_vec(),
            (_, None) => pixels.iter().map(|pixel| pixel ^ 0x80).collect(),
            (data_type, Some(of)) => {
                let number = |pixel: &u8| (value(pixel) / of.scale).round() + of.zero_point as f32;
                // `as` keeps what is out of bounds at the bound.
                match data_type {
                    DataType::Int8 => pixels.iter().map(|pixel| (number(pixel) as i8).cast_unsigned()).collect(),
                    _ => pixels.iter().map(|pixel| number(pixel) as u8).collect(),
                }
            }
        }
    }
}

fn decode(file: &[u8]) -> Result<DynamicImage, InputError> {
    let format = image::guess_format(file).ok();
    let format = format.filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg));
    let format = format.ok_or(InputError::UnknownFormat)?;
    let (width, height) = reader(file, format).into_dimensions().map_err(input_error)?;
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(InputError::TooLarge);
    }
    reader(file, format).decode().map_err(input_error)
}

fn reader(file: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits);
    reader
}

fn input_error(error: ImageError) -> InputError {
    match error {
        ImageError::Limits(_) => InputError::TooLarge,
        other => InputError::Damaged(other.to_string()),
    }
}
