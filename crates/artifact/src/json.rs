//! JSON inside the files: exact floats, fixed order of fields, and never a value that cannot be read back.

use serde::{Serialize, de::DeserializeOwned};

/// `value` as JSON, after making sure that reading it gives it back: NaN, infinity and excessive depth do not.
pub(crate) fn encode<T: Serialize + DeserializeOwned + PartialEq>(what: &str, value: &T) -> Result<String, String> {
    let text = serde_json::to_string(value).map_err(|e| format!("the {what} cannot be written as JSON: {e}"))?;
    match serde_json::from_str::<T>(&text) {
        Ok(back) if back == *value => Ok(text),
        Ok(_) => Err(format!("the {what} changes when it is read back from JSON")),
        Err(e) => Err(format!("the {what} cannot be read back from JSON (NaN, infinity, or too deep): {e}")),
    }
}

/// The value `text` spells.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| format!("its {what} cannot be understood: {e}"))
}
