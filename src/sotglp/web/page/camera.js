// Images from the camera.

const SENTENCES = {
  NotAllowedError: "Camera access is blocked: allow it in the address bar, and try again.",
  NotFoundError: "No camera was found: connect one, or choose an image.",
  NotReadableError: "The camera is in use by another program: close it, and try again.",
};

/** Browsers require localhost or https. */
function isAvailable() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

/** Phones open their camera for a file input with `capture`, also where pages can't. */
function hasCameraInput() {
  return window.matchMedia("(pointer: coarse)").matches;
}

export function setUpCamera({ opener, panel, video, taker, closer, input, onPicture, onError }) {
  let stream = null;
  let taken = 0;
  opener.hidden = !isAvailable() && !hasCameraInput();
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    files.forEach(onPicture);
  });

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.srcObject = null;
    panel.hidden = true;
    opener.hidden = false;
  }

  opener.addEventListener("click", async () => {
    if (!isAvailable()) {
      input.click();
      return;
    }
    opener.disabled = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      video.srcObject = stream;
      panel.hidden = false;
      opener.hidden = true;
      await video.play();
      taker.focus();
    } catch (error) {
      stop();
      onError(SENTENCES[error.name] ?? "The camera can't be opened: choose an image instead.");
    } finally {
      opener.disabled = false;
    }
  });

  taker.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    if (!canvas.width) return; // no frame yet
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      taken += 1;
      onPicture(new File([blob], `camera_${taken}.jpg`, { type: "image/jpeg" }));
    }, "image/jpeg", 0.92);
  });

  closer.addEventListener("click", () => {
    stop();
    opener.focus();
  });
  return { stop };
}
