//! Rules that hold for a spec by itself, whatever the ONNX file says.

use crate::{
    ChannelOrder, Layout, Mistake, Mistakes, ModelSpec, Preprocess, Quantisation, ResizePolicy,
};

// What an address bar, a metric label and a DNS label all take.
const MAX_NAME_LEN: usize = 63;
// A larger input would need more than a gigabyte of activations in the first layers.
const MAX_SIDE: usize = 4096;
const MAX_TOP_K: usize = 1000;

impl ModelSpec {
    /// Checks every rule that needs no other file.
    ///
    /// # Errors
    /// All broken rules together.
    pub fn validate(&self) -> Result<(), Mistakes> {
        let mut found = Vec::new();
        self.check_names(&mut found);
        self.check_shape(&mut found);
        self.check_preprocess(&mut found);
        self.check_carried_out(&mut found);
        if self.output.top_k == 0 || self.output.top_k > MAX_TOP_K {
            found.push(Mistake::new(
                "output.top_k",
                format!("must be 1 to {MAX_TOP_K}, is {}", self.output.top_k),
            ));
        }
        Mistakes(found).into_result()
    }

    fn check_names(&self, found: &mut Vec<Mistake>) {
        let name = &self.model.name;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = name.bytes().next().is_some_and(allowed)
            && name.len() <= MAX_NAME_LEN
            && name.bytes().all(|byte| allowed(byte) || b"._-".contains(&byte));
        if !good {
            found.push(
                Mistake::new("model.name", format!("{name:?} cannot stand in a URL and a metric"))
                    .hint("1 to 63 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"),
            );
        }
        for (key, value) in [
            ("model.version", &self.model.version),
            ("model.onnx", &self.model.onnx),
            ("output.labels", &self.output.labels),
        ] {
            if value.is_empty() {
                found.push(Mistake::new(key, "must not be empty"));
            }
        }
        if self.compile.tuning.as_deref() == Some("") {
            found.push(
                Mistake::new("compile.tuning", "must not be empty")
                    .hint("leave the key out to use tuning.json beside this file, if it is there"),
            );
        }
    }

    fn check_shape(&self, found: &mut Vec<Mistake>) {
        let shape = &self.input.shape;
        if shape.len() != 4 {
            found.push(
                Mistake::new(
                    "input.shape",
                    format!("an image tensor has 4 extents, {shape:?} has {}", shape.len()),
                )
                .hint("for example [1, 3, 224, 224]"),
            );
            return;
        }
        if shape[0] != 1 {
            found.push(Mistake::new(
                "input.shape",
                format!("the batch must be 1, is {}: one request is one picture", shape[0]),
            ));
        }
        let (height, width) = self.input.height_width();
        for (what, extent) in [("height", height), ("width", width)] {
            if extent == 0 || extent > MAX_SIDE {
                found.push(Mistake::new(
                    "input.shape",
                    format!("{what} must be 1 to {MAX_SIDE}, is {extent}"),
                ));
            }
        }
        let channels = self.input.channels();
        let expected = self.preprocess.channels.count();
        if channels != expected {
            let mistake = Mistake::new(
                "preprocess.channels",
                format!(
                    "{} has {expected} channel{}, the input has {channels}",
                    self.preprocess.channels.as_str(),
                    if expected == 1 { "" } else { "s" }
                ),
            );
            let other_layout = match self.input.layout {
                Layout::Nchw => shape[3],
                Layout::Nhwc => shape[1],
            };
            found.push(if other_layout == expected {
                mistake.hint("is input.layout the other one?")
            } else {
                mistake
            });
        }
    }

    fn check_preprocess(&self, found: &mut Vec<Mistake>) {
        let Preprocess { scale, mean, std, .. } = &self.preprocess;
        let channels = self.preprocess.channels.count();
        for (key, values) in
            [("preprocess.scale", scale), ("preprocess.mean", mean), ("preprocess.std", std)]
        {
            if values.len() != 1 && values.len() != channels {
                found.push(Mistake::new(
                    key,
                    format!("needs 1 or {channels} values, has {}", values.len()),
                ));
            }
            if values.iter().any(|value| !value.is_finite()) {
                found.push(Mistake::new(key, "must be finite"));
            }
        }
        if std.contains(&0.0) {
            found.push(Mistake::new("preprocess.std", "must not be 0: it is divided by"));
        }
        if std.len() > 1 && scale.iter().all(|&value| value == 1.0) && std.iter().all(|s| *s < 1.0)
        {
            found.push(
                Mistake::new("preprocess.scale", "1 with a std below 1 gives values in hundreds")
                    .hint("mean and std of 0..1 pixels go with scale = \"1/255\""),
            );
        }
        self.check_sizes(found);
    }

    fn check_sizes(&self, found: &mut Vec<Mistake>) {
        if self.input.shape.len() != 4 {
            return;
        }
        let (height, width) = self.input.height_width();
        let (size, crop) = (self.preprocess.size, self.preprocess.crop);
        match self.preprocess.resize {
            ResizePolicy::ShorterSide => {
                if let Some(crop) = crop
                    && (crop.height as usize, crop.width as usize) != (height, width)
                {
                    found.push(Mistake::new(
                        "preprocess.crop",
                        format!(
                            "{}x{} is not the input's {height}x{width}",
                            crop.height, crop.width
                        ),
                    ));
                }
                if let Some(size) = size {
                    if size.height != size.width {
                        found.push(
                            Mistake::new("preprocess.size", "a shorter side is one number")
                                .hint("write size = 256"),
                        );
                    } else if (size.height as usize) < height.max(width) {
                        found.push(Mistake::new(
                            "preprocess.size",
                            format!(
                                "shorter side {} is less than the crop's {}",
                                size.height,
                                height.max(width)
                            ),
                        ));
                    }
                    if size.height as usize > 4 * MAX_SIDE {
                        found.push(Mistake::new("preprocess.size", "is too large"));
                    }
                }
            }
            ResizePolicy::Exact | ResizePolicy::Letterbox => {
                if let Some(size) = size
                    && (size.height as usize, size.width as usize) != (height, width)
                {
                    found.push(Mistake::new(
                        "preprocess.size",
                        format!(
                            "{}x{} is not the input's {height}x{width}",
                            size.height, size.width
                        ),
                    ));
                }
                if crop.is_some() {
                    found.push(
                        Mistake::new("preprocess.crop", "only goes with resize = \"shorter-side\"")
                            .hint("remove the line"),
                    );
                }
            }
        }
    }

    fn check_carried_out(&self, found: &mut Vec<Mistake>) {
        if self.compile.threads != 1 {
            found.push(Mistake::new(
                "compile.threads",
                format!("{} threads are not carried out yet, only 1", self.compile.threads),
            ));
        }
        if self.compile.quantisation != Quantisation::None {
            found.push(Mistake::new(
                "compile.quantisation",
                "int8 is not carried out yet, only \"none\"",
            ));
        }
    }
}

impl ChannelOrder {
    /// Number of channels: 3, or 1 for grey.
    pub fn count(self) -> usize {
        match self {
            ChannelOrder::Rgb | ChannelOrder::Bgr => 3,
            ChannelOrder::Grey => 1,
        }
    }

    /// The word used in `model.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
            ChannelOrder::Grey => "grey",
        }
    }
}
