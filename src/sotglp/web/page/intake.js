// Ways for files to come in: a button, dropping, pasting.

/** Files of a drop or a paste, and whether a folder was among them. */
function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const isFolder = (item) => item.webkitGetAsEntry?.()?.isDirectory;
  return {
    files: items.filter((item) => !isFolder(item)).map((item) => item.getAsFile()).filter(Boolean),
    folder: items.some(isFolder),
  };
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

/** A button that opens the system's file dialogue. */
export function takeChosen(button, input, onFiles) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    if (files.length) onFiles(files);
  });
}

/** A place that takes what is dropped on it; `zone` shows that it would. */
export function takeDropped(place, zone, onFiles, onFolder) {
  let depth = 0; // entering a child comes before leaving its parent
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  place.addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  place.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  place.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  place.addEventListener("drop", (event) => {
    show(0);
    if (!hasFiles(event) || event.defaultPrevented) return;
    event.preventDefault();
    const { files, folder } = filesOf(event.dataTransfer);
    if (folder) onFolder();
    if (files.length) onFiles(files);
  });
}

export function takePasted(onFiles) {
  document.addEventListener("paste", (event) => {
    const { files } = filesOf(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    onFiles(files);
  });
}
