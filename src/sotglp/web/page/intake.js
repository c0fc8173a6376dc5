// Sources of files: a button, drag and drop, the clipboard.

/** Files of a drop or paste, and whether it contains a folder. */
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

/** A button that opens the file dialog. */
export function takeChosen(button, input, onFiles) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    if (files.length) onFiles(files);
  });
}

/** A target of drag and drop; `zone` is highlighted. */
export function takeDropped(target, zone, onFiles, onFolder) {
  let depth = 0; // entering a child comes before leaving its parent
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  target.addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  target.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  target.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  target.addEventListener("drop", (event) => {
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
