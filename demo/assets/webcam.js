// The webcam tab: sends frames to the demo's own server and draws the readings over the video.
import {downloadCanvas, downloadTable, readingRow, timedName} from "./download.js";
import {describeReadings, drawReadings, fitCanvas} from "./drawing.js";
import {mount} from "./mount.js";

const FRAME_WIDTH_PX = 640, JPEG_QUALITY = 0.7, MAX_IN_FLIGHT = 2, RETRY_MS = 1000;
const TIMELINE_S = 30, TIMELINE_PEOPLE = 6, HOLD_S = 0.5;
const SPEAK_MS = 5000;  // a screen reader gets the readings at most this often
const MAX_ROWS = 100_000;  // of the session's readings: the oldest are dropped
const NO_CAMERA = "This page gets no camera: browsers allow it only on https pages and on the computer that runs the demo. "
  + `Start the demo with --ssl-certfile and --ssl-keyfile and open https://${location.host}, or take a picture in the Photo tab.`;
const CAMERA_ERRORS = {
  NotAllowedError: "The camera is blocked. Allow it in the address bar and start again.",
  NotFoundError: "No camera was found. Connect one and start again.",
  NotReadableError: "The camera is used by another program. Close that program and start again.",
};

// An address of the demo, also where a proxy serves it under a path.
const fromServer = path => new URL(`../${path}`, import.meta.url);

mount("webcam", root => {
  const part = name => root.querySelector(`[data-part=${name}]`);
  const video = part("video"), overlay = part("overlay"), timeline = part("timeline");
  const chosen = group => root.querySelector(`[name=webcam-${group}]:checked`).value;
  const colors = JSON.parse(root.dataset.colors), emotions = Object.keys(colors);
  const frameCanvas = document.createElement("canvas");
  // phase: "idle" -> "starting" (waits for the camera) -> "running" -> "idle". Each start is a new `attempt`.
  const state = {phase: "idle", attempt: 0, stream: null, socket: null, encoding: false, answer: null};
  const session = {rows: [], startedAt: 0, frame: 0, spokenAt: 0};
  const measured = {sentAt: [], roundTrips: [], answeredAt: [], history: new Map()};

  function showMessage(text) {
    part("message").textContent = text;
    part("message").hidden = !text;
  }

  function enter(phase) {
    state.phase = root.dataset.phase = phase;
    part("start").disabled = phase !== "idle";
    part("start").textContent = phase === "starting" ? "Starting…" : "Start the camera";
    part("start").hidden = phase === "running";
    part("stop").hidden = phase === "idle";
    part("snapshot").disabled = true;  // until there is an answer
  }

  async function start() {
    if (state.phase !== "idle") return;
    if (!navigator.mediaDevices) {
      showMessage(NO_CAMERA);
      return;
    }
    const attempt = ++state.attempt;
    enter("starting");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({video: videoConstraints(), audio: false});
    } catch (error) {
      if (attempt !== state.attempt) return;
      stop();
      showMessage(CAMERA_ERRORS[error.name] || `The camera does not start: ${error.message}`);
      return;
    }
    if (attempt !== state.attempt) {  // stopped while the browser waited for permission
      endStream(stream);
      return;
    }
    state.stream = stream;
    showMessage("");
    enter("running");
    Object.assign(session, {rows: [], startedAt: performance.now(), frame: 0, spokenAt: 0});
    part("download").disabled = true;
    video.srcObject = stream;
    connect();
    sendEachFrame(attempt);
    await video.play().catch(() => {});  // rejected if the camera is stopped before the first frame
    await listCameras();
  }

  function stop() {
    state.attempt++;
    enter("idle");
    if (state.socket) state.socket.close();
    if (state.stream) endStream(state.stream);
    state.socket = state.stream = state.answer = video.srcObject = null;
    measured.history.clear();
    fitCanvas(overlay, overlay.clientWidth, overlay.clientHeight);
    part("numbers").textContent = part("spoken").textContent = "";
  }

  function endStream(stream) {
    stream.getTracks().forEach(track => track.stop());
  }

  function videoConstraints() {
    const camera = part("camera").value;
    return {width: {ideal: 1280}, height: {ideal: 720}, ...(camera ? {deviceId: {exact: camera}} : {facingMode: "user"})};
  }

  async function listCameras() {  // browsers reveal the names only after the camera is allowed
    const select = part("camera"), camera = select.value;
    const devices = await navigator.mediaDevices.enumerateDevices();
    const cameras = devices.filter(device => device.kind === "videoinput");
    select.replaceChildren(...cameras.map((device, index) => new Option(device.label || `Camera ${index + 1}`, device.deviceId)));
    if (camera) select.value = camera;
    select.hidden = cameras.length < 2;
  }

  function connect() {
    const socket = new WebSocket(fromServer("webcam").href.replace(/^http/, "ws"));
    const isCurrent = () => state.socket === socket;
    state.socket = socket;
    measured.sentAt = [];
    socket.onopen = () => {
      if (!isCurrent()) return;
      showMessage("");
      sendMode();
    };
    socket.onmessage = event => isCurrent() && showAnswer(JSON.parse(event.data));
    socket.onclose = async event => {
      if (!isCurrent()) return;
      setTimeout(() => isCurrent() && connect(), RETRY_MS);
      const reason = event.reason || await refusal();
      if (isCurrent()) showMessage(`${reason || "The server does not answer."} Trying again every second.`);
    };
  }

  async function refusal() {  // a browser hides why a WebSocket is refused; the same request over HTTP gets the reason
    const response = await fetch(fromServer("webcam"), {method: "POST"}).catch(() => null);
    return response?.status === 403 ? (await response.json()).error : "";
  }

  function isConnected() {
    return state.socket !== null && state.socket.readyState === WebSocket.OPEN;
  }

  function sendMode() {
    if (isConnected()) state.socket.send(JSON.stringify({faces: chosen("faces"), detector: chosen("detector")}));
  }

  function sendFrame() {  // skips frames while the server is busy, so that none is late
    const busy = state.encoding || measured.sentAt.length >= MAX_IN_FLIGHT;
    if (state.phase !== "running" || !isConnected() || busy || !video.videoWidth) return;
    const scale = Math.min(1, FRAME_WIDTH_PX / video.videoWidth);
    frameCanvas.width = Math.round(video.videoWidth * scale);
    frameCanvas.height = Math.round(video.videoHeight * scale);
    frameCanvas.getContext("2d").drawImage(video, 0, 0, frameCanvas.width, frameCanvas.height);
    const takenAt = performance.now();
    state.encoding = true;
    frameCanvas.toBlob(blob => {
      state.encoding = false;
      if (!blob || !isConnected()) return;
      measured.sentAt.push(takenAt);
      state.socket.send(blob);
    }, "image/jpeg", JPEG_QUALITY);
  }

  function showNotice(answer) {  // the detector could not be loaded
    root.querySelector(`[name=webcam-detector][value=${answer.detector}]`).checked = true;
    showMessage(answer.notice);
  }

  function showAnswer(answer) {
    if (answer.notice) {
      showNotice(answer);
      return;
    }
    const now = performance.now(), roundTrip = now - measured.sentAt.shift();
    if (answer.error) {
      showMessage(answer.error);
      return;
    }
    measured.answeredAt = [...measured.answeredAt, now].filter(time => now - time < 2000);
    measured.roundTrips = [...measured.roundTrips, roundTrip].slice(-60);
    for (const {track, emotion, confidence} of answer.readings) {
      if (!measured.history.has(track)) measured.history.set(track, []);
      measured.history.get(track).push({time: now / 1000, emotion, confidence});
    }
    state.answer = answer;
    keepReadings(answer);
    drawOverlay(answer);
    drawTimeline();
    speak(answer);
    showNumbers(answer);
    root.dataset.faces = answer.readings.length;
    root.dataset.emotions = answer.readings.map(reading => reading.emotion).join(" ");
    root.dataset.answers = Number(root.dataset.answers || 0) + 1;
    root.dataset.roundTrip = roundTrip.toFixed(1);
    sendFrame();
  }

  function keepReadings(answer) {
    const time_s = ((performance.now() - session.startedAt) / 1000).toFixed(3);
    const place = {source: "webcam", frame: session.frame++, time_s};
    session.rows.push(...answer.readings.map(reading => readingRow(reading, emotions, place)));
    if (session.rows.length > 1.1 * MAX_ROWS) session.rows.splice(0, session.rows.length - MAX_ROWS);
    part("snapshot").disabled = false;
    part("download").disabled = !session.rows.length;
  }

  function speak(answer) {
    const text = describeReadings(answer.readings), now = performance.now();
    if (text === part("spoken").textContent || (session.spokenAt && now - session.spokenAt < SPEAK_MS)) return;
    session.spokenAt = now;
    part("spoken").textContent = text;
    overlay.ariaLabel = text;
  }

  function takeSnapshot() {  // as it is seen: mirrored
    const {answer} = state, width = video.videoWidth, height = video.videoHeight;
    if (!answer || !width) return;
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    Object.assign(canvas, {width, height});
    context.setTransform(-1, 0, 0, 1, width, 0);
    context.drawImage(video, 0, 0, width, height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    drawReadings(context, answer.readings, colors, {scale: width / answer.width, mirror: true, width, height});
    downloadCanvas(canvas, timedName("webcam"));
  }

  function showNumbers(answer) {
    const faces = answer.readings.length, sorted = [...measured.roundTrips].sort((a, b) => a - b);
    part("numbers").textContent = [
      `${faces} ${faces === 1 ? "face" : "faces"}`,
      `${sorted[sorted.length >> 1].toFixed(0)} ms round trip`,
      `${answer.ms.toFixed(0)} ms on the server`,
      `${(measured.answeredAt.length / 2).toFixed(0)} readings/s`,
    ].join(" · ");
  }

  function drawOverlay(answer) {
    const width = video.clientWidth, height = video.clientHeight;
    const context = fitCanvas(overlay, width, height);
    drawReadings(context, answer.readings, colors, {scale: width / answer.width, mirror: true, width, height});
  }

  function drawTimeline() {  // one lane per person: color is the emotion, height the confidence
    const now = performance.now() / 1000;
    for (const [track, lane] of measured.history) {
      while (lane.length && now - lane[0].time > TIMELINE_S) lane.shift();
      if (!lane.length) measured.history.delete(track);
    }
    const lanes = [...measured.history].slice(-TIMELINE_PEOPLE), laneHeight = 34;
    const width = timeline.clientWidth, height = Math.max(lanes.length, 1) * laneHeight + 18;
    timeline.style.height = `${height}px`;
    const context = fitCanvas(timeline, width, height), textColor = getComputedStyle(root).color;
    const left = 74, span = width - left - 6;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    lanes.forEach(([track, lane], index) => {
      const bottom = (index + 1) * laneHeight;
      context.fillStyle = textColor;
      context.fillText(`Person ${track}`, 4, bottom - laneHeight / 2 + 2);
      lane.forEach(({time, emotion, confidence}, number) => {
        const end = Math.min(number + 1 < lane.length ? lane[number + 1].time : now, time + HOLD_S);
        const x = left + span * (1 - (now - time) / TIMELINE_S), barHeight = (laneHeight - 8) * confidence;
        context.fillStyle = colors[emotion];
        context.fillRect(x, bottom - barHeight, Math.max(1, span * (end - time) / TIMELINE_S + 0.5), barHeight);
      });
    });
    context.fillStyle = textColor;
    context.globalAlpha = 0.6;
    context.fillText(`${TIMELINE_S} s ago`, left, height - 8);
    context.fillText("now", left + span - 22, height - 8);
    context.globalAlpha = 1;
  }

  function sendEachFrame(attempt) {
    if (attempt !== state.attempt) return;
    sendFrame();
    const again = () => sendEachFrame(attempt);
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(again);
    else requestAnimationFrame(again);
  }

  function check() {
    if (root.isConnected) return sendFrame();  // a page in the background gets no video frames, but is still read
    clearInterval(timer);  // Gradio built the tab again
    return stop();
  }

  part("start").onclick = start;
  part("stop").onclick = stop;
  part("camera").onchange = () => { stop(); start(); };
  part("snapshot").onclick = takeSnapshot;
  part("download").onclick = () => downloadTable(session.rows, timedName("webcam"));
  root.querySelectorAll("[type=radio]").forEach(radio => { radio.onchange = () => { showMessage(""); sendMode(); }; });
  addEventListener("pagehide", stop);
  enter("idle");
  const timer = setInterval(check, 100);
  if (!navigator.mediaDevices) showMessage(NO_CAMERA);
});
