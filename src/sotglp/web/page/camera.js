// Pictures from the camera.

const SENTENCES = {
  NotAllowedError: "The camera may not be used. Allow it beside the address of this page, and try again.",
  NotFoundError: "No camera was found. Connect one, or choose a picture.",
  NotReadableError: "The camera is in use by another programme. Close that, and try again.",
};

/** Without a secure context, that is away from localhost and https, browsers give no camera. */
function isThere() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

export function setUpCamera({ opener, panel, video, taker, closer, onPicture, onError }) {
  let stream = null;
  let taken = 0;
  opener.hidden = !isThere();

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.srcObject = null;
    panel.hidden = true;
    opener.hidden = false;
  }

  opener.addEventListener("click", async () => {
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
      onError(SENTENCES[error.name] ?? "The camera can't be opened. Choose a picture instead.");
    } finally {
      opener.disabled = false;
    }
  });

  taker.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    if (!canvas.width) return; // no frame has come yet
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
}
