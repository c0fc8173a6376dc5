// CSV files of predictions.

/** Length of the first record with its line end, which may be quoted within a cell. */
function headLength(text) {
  let quoted = false;
  for (let index = 0; index < text.length; index += 1) {
    if (text[index] === '"') quoted = !quoted;
    else if (text[index] === "\n" && !quoted) return index + 1;
  }
  return text.length;
}

/** Concatenate tables with the same columns. */
export function joined(tables) {
  return tables.map((text, index) => (index === 0 ? text : text.slice(headLength(text)))).join("");
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
