// Tables of predictions as files.

/** Length of the first record with its line end; line breaks within quotes belong to a cell. */
function headLength(text) {
  let quoted = false;
  for (let place = 0; place < text.length; place += 1) {
    if (text[place] === '"') quoted = !quoted;
    else if (text[place] === "\n" && !quoted) return place + 1;
  }
  return text.length;
}

/** One table of several that have the same columns. */
export function joined(tables) {
  return tables.map((text, place) => (place === 0 ? text : text.slice(headLength(text)))).join("");
}

export function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
