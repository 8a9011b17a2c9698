//! One decoded image.

use std::borrow::Cow;

/// Where an image's channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[C, H, W]`: one plane after the other.
    Planar,
    /// `[H, W, C]`: pixel by pixel.
    Interleaved,
}

/// An image as it is stored, u8.
#[derive(Debug)]
pub(crate) struct Raster<'a> {
    /// `[C, H, W]`, however the values are laid out.
    pub shape: [usize; 3],
    pub layout: Layout,
    pub pixels: Cow<'a, [u8]>,
    /// Gray of 16 bits before it came to 8.
    pub deep_gray: bool,
}

impl Raster<'static> {
    /// Pixel by pixel.
    pub fn interleaved(shape: [usize; 3], pixels: Vec<u8>) -> Self {
        Self::new(shape, Layout::Interleaved, Cow::Owned(pixels))
    }

    /// Gray or RGB of 1 (gray), 2 (and transparency), 3 (RGB) or 4 values a pixel.
    pub fn without_alpha([h, w]: [usize; 2], n_stored: usize, values: Vec<u8>) -> Self {
        let channels = if n_stored < 3 { 1 } else { 3 };
        let pixels = match n_stored {
            1 | 3 => values,
            _ => values.chunks_exact(n_stored).flat_map(|pixel| pixel[..channels].to_vec()).collect(),
        };
        Self::interleaved([channels, h, w], pixels)
    }

    /// RGB of ink, as Pillow's `cmyk2rgb` mixes it.
    pub fn from_cmyk([h, w]: [usize; 2], ink: &[u8]) -> Self {
        let pixels = ink.chunks_exact(4).flat_map(|pixel| {
            let white = 255 - u32::from(pixel[3]);
            [0, 1, 2].map(|c| {
                let product = u32::from(pixel[c]) * white + 128;
                (white - (((product >> 8) + product) >> 8)) as u8
            })
        });
        Self::interleaved([3, h, w], pixels.collect())
    }
}

impl<'a> Raster<'a> {
    pub fn new(shape: [usize; 3], layout: Layout, pixels: Cow<'a, [u8]>) -> Self {
        Self { shape, layout, pixels, deep_gray: false }
    }

    /// Number of values between two neighbours of a row, and the position of channel `c`'s first value.
    pub fn stride_and_start(&self, c: usize) -> (usize, usize) {
        let [n_channels, h, w] = self.shape;
        match self.layout {
            Layout::Planar => (1, c * h * w),
            Layout::Interleaved => (n_channels, c),
        }
    }
}
