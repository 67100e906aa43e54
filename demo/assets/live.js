// The webcam and photo tabs. Pictures go to this page's own server and nowhere else; everything on them is drawn here.
"use strict";

const WIDTH_SENT_PX = 640, QUALITY = 0.7, IN_FLIGHT = 2, RETRY_MS = 1000, TIMELINE_S = 30;
const EMOJI = {angry: "😠", disgust: "🤢", fear: "😨", happy: "😊", sad: "😢", surprise: "😮", neutral: "😐"};

function whenThere(id, start) {  // Gradio builds its tabs when it likes, and may build them again
  const look = () => {
    const element = document.getElementById(id);
    if (element && !element.dataset.started) { element.dataset.started = "yes"; start(element); }
  };
  new MutationObserver(look).observe(document.documentElement, {childList: true, subtree: true});
  look();
}

// ---------------------------------------------------------------- drawing

function drawReadings(context, readings, colors, {scale, mirror, width, height}) {
  const unit = Math.max(11, Math.min(18, width / 45));
  context.textBaseline = "middle";
  const placed = readings.map(reading => {
    const [left, top, wide, high] = reading.box.map(side => side * scale);
    return {reading, x: mirror ? width - left - wide : left, y: top, wide, high};
  });
  const taken = [...placed];  // no panel may hide a face or another panel
  for (const one of placed) {
    const color = colors[one.reading.emotion];
    context.lineWidth = Math.max(2, unit / 6);
    context.strokeStyle = color;
    context.setLineDash(one.reading.unsure ? [unit / 2, unit / 2] : []);
    context.beginPath();
    context.roundRect(one.x, one.y, one.wide, one.high, unit / 2);
    context.stroke();
    context.setLineDash([]);
  }
  for (const one of placed) taken.push(drawLabel(context, one, unit, colors, width));
  for (const one of placed) drawBars(context, one, unit, colors, {width, height, taken});
}

function drawLabel(context, {reading, x, y: top}, unit, colors, width) {
  const name = reading.unsure ? `unsure (${reading.emotion}?)` : reading.emotion;
  const person = reading.track === null ? "" : ` · ${reading.track}`;
  const text = `${name} ${Math.round(100 * reading.confidence)} %${person}`;
  context.font = `600 ${unit}px system-ui, sans-serif`;
  const high = unit * 1.8, emoji = unit * 1.6, wide = context.measureText(text).width + emoji + unit * 1.2;
  const start = Math.max(2, Math.min(x, width - wide - 2)), y = top - high - 4 < 0 ? top + 4 : top - high - 4;
  panel(context, start, y, wide, high, high / 2, 0.78);
  context.fillStyle = colors[reading.emotion];
  context.fillRect(start + unit, y + high - 3, wide - 2 * unit, 2);
  context.fillStyle = "#fff";
  context.fillText(text, start + emoji + unit * 0.7, y + high / 2 - 1);
  context.font = `${unit * 1.25}px "Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", sans-serif`;
  context.fillText(EMOJI[reading.emotion], start + unit * 0.4, y + high / 2);
  return {x: start, y, wide, high};
}

function drawBars(context, {reading, x, y: top, wide, high}, unit, colors, {width, height, taken}) {
  const names = Object.keys(colors), row = Math.min(unit * 1.05, Math.max(high / names.length, 10));
  const letters = Math.min(unit * 0.75, row * 0.8), textWide = letters * 4.6, barWide = Math.min(90, Math.max(30, wide * 0.35));
  const size = {wide: textWide + barWide + 10, high: row * names.length + 6};
  const places = [[x + wide + 6, top], [x - size.wide - 6, top], [x, top + high + 6]];
  const place = places.map(([left, y]) => ({x: left, y, ...size})).find(spot =>
    spot.x >= 0 && spot.x + spot.wide <= width && spot.y + spot.high <= height && !taken.some(other => touch(spot, other)));
  if (!place) return;  // the label says the most important
  taken.push(place);
  panel(context, place.x, place.y, place.wide, place.high, 6, 0.62);
  context.font = `${letters}px system-ui, sans-serif`;
  names.forEach((name, number) => {
    const y = place.y + 3 + row * (number + 0.5), start = place.x + 5 + textWide, share = reading.probabilities[number];
    context.fillStyle = name === reading.emotion ? "#fff" : "rgba(255, 255, 255, 0.72)";
    context.fillText(name, place.x + 5, y);
    context.fillStyle = "rgba(255, 255, 255, 0.16)";
    context.fillRect(start, y - row * 0.28, barWide, row * 0.56);
    context.fillStyle = colors[name];
    context.fillRect(start, y - row * 0.28, barWide * share, row * 0.56);
  });
}

function panel(context, x, y, wide, high, round, dark) {
  context.fillStyle = `rgba(15, 17, 21, ${dark})`;
  context.beginPath();
  context.roundRect(x, y, wide, high, round);
  context.fill();
}

function touch(one, other) {
  return one.x < other.x + other.wide && other.x < one.x + one.wide && one.y < other.y + other.high && other.y < one.y + one.high;
}

function fitCanvas(canvas, width, height) {
  const dense = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * dense)) canvas.width = Math.round(width * dense);
  if (canvas.height !== Math.round(height * dense)) canvas.height = Math.round(height * dense);
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// ---------------------------------------------------------------- webcam

whenThere("live", root => {
  const find = name => root.querySelector(`[data-part=${name}]`);
  const video = find("video"), overlay = find("overlay"), strip = find("timeline"), message = find("message");
  const colors = JSON.parse(root.dataset.colors), sender = document.createElement("canvas");
  const state = {stream: null, socket: null, sent: [], waits: [], answers: [], history: new Map(), running: false};

  function say(text) { message.textContent = text; message.hidden = !text; }

  async function start() {
    if (!navigator.mediaDevices) return say("The browser gives its camera only to https or to 127.0.0.1: open the page there.");
    const chosen = find("camera").value;
    const wanted = {width: {ideal: 1280}, height: {ideal: 720}, ...(chosen ? {deviceId: {exact: chosen}} : {facingMode: "user"})};
    try {
      state.stream = await navigator.mediaDevices.getUserMedia({video: wanted, audio: false});
    } catch (error) {
      const reasons = {
        NotAllowedError: "The camera is not allowed: click on the camera in the address bar, allow it, and start again.",
        NotFoundError: "No camera was found: plug one in and start again.",
        NotReadableError: "The camera is in use by another program: close that and start again.",
      };
      return say(reasons[error.name] || `The camera does not start: ${error.message}`);
    }
    say("");
    state.running = true;
    root.classList.add("running");
    find("start").textContent = "Stop";
    video.srcObject = state.stream;
    await video.play();
    await listCameras();
    connect();
  }

  function stop() {
    state.running = false;
    root.classList.remove("running");
    find("start").textContent = "Start the camera";
    if (state.socket) state.socket.close();
    if (state.stream) state.stream.getTracks().forEach(track => track.stop());
    video.srcObject = null;
    state.history.clear();
    fitCanvas(overlay, overlay.clientWidth, overlay.clientHeight);
    find("numbers").textContent = "";
  }

  async function listCameras() {
    const select = find("camera"), now = select.value;
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(device => device.kind === "videoinput");
    select.replaceChildren(...cameras.map((one, number) => new Option(one.label || `camera ${number + 1}`, one.deviceId)));
    if (now) select.value = now;
    select.hidden = cameras.length < 2;
  }

  function connect() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
    state.socket = socket;
    state.sent = [];
    socket.onopen = () => { say(""); sendMode(); };
    socket.onmessage = event => answer(JSON.parse(event.data));
    socket.onclose = () => {
      if (!state.running || state.socket !== socket) return;
      say("The server does not answer; trying again every second.");
      setTimeout(() => state.running && connect(), RETRY_MS);
    };
  }

  function sendMode() {
    if (state.socket && state.socket.readyState === WebSocket.OPEN) {
      state.socket.send(JSON.stringify({faces: root.querySelector("[name=faces]:checked").value}));
    }
  }

  function sendFrame() {  // the newest picture or none: nothing is ever queued
    const open = state.socket && state.socket.readyState === WebSocket.OPEN;
    if (!state.running || !open || state.sent.length >= IN_FLIGHT || !video.videoWidth || state.encoding) return;
    const scale = Math.min(1, WIDTH_SENT_PX / video.videoWidth);
    sender.width = Math.round(video.videoWidth * scale);
    sender.height = Math.round(video.videoHeight * scale);
    sender.getContext("2d").drawImage(video, 0, 0, sender.width, sender.height);
    state.encoding = true;
    const taken = performance.now();
    sender.toBlob(blob => {
      state.encoding = false;
      if (!blob || !state.socket || state.socket.readyState !== WebSocket.OPEN) return;
      state.sent.push(taken);
      state.socket.send(blob);
    }, "image/jpeg", QUALITY);
  }

  function answer(told) {
    const taken = state.sent.shift();
    if (told.error) return say(told.error);
    const now = performance.now();
    state.answers.push(now);
    state.answers = state.answers.filter(at => now - at < 2000);
    state.waits.push(now - taken);
    state.waits = state.waits.slice(-60);
    for (const reading of told.readings) {
      const lane = state.history.get(reading.track) || [];
      lane.push({at: now / 1000, emotion: reading.emotion, confidence: reading.confidence});
      state.history.set(reading.track, lane);
    }
    state.told = told;
    draw(told);
    const wait = [...state.waits].sort((a, b) => a - b)[Math.floor(state.waits.length / 2)];
    const rate = (state.answers.length / 2).toFixed(0), faces = told.readings.length;
    find("numbers").textContent =
      `${faces} ${faces === 1 ? "face" : "faces"} · ${wait.toFixed(0)} ms there and back · ${told.ms.toFixed(0)} ms of it reading · ${rate} readings/s`;
    root.dataset.faces = faces;
    root.dataset.answers = Number(root.dataset.answers || 0) + 1;
    root.dataset.wait = (now - taken).toFixed(1);
    sendFrame();
  }

  function draw(told) {
    const width = video.clientWidth, height = video.clientHeight;
    const context = fitCanvas(overlay, width, height);
    drawReadings(context, told.readings, colors, {scale: width / told.width, mirror: true, width, height});
    drawTimeline();
  }

  function drawTimeline() {
    const now = performance.now() / 1000;
    for (const [track, lane] of state.history) {
      while (lane.length && now - lane[0].at > TIMELINE_S) lane.shift();
      if (!lane.length) state.history.delete(track);
    }
    const lanes = [...state.history].slice(-6), row = 34, width = strip.clientWidth;
    strip.style.height = `${Math.max(lanes.length, 1) * row + 18}px`;
    const context = fitCanvas(strip, width, Math.max(lanes.length, 1) * row + 18);
    const ink = getComputedStyle(root).color, start = 74, span = width - start - 6;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    lanes.forEach(([track, lane], number) => {
      const base = (number + 1) * row;
      context.fillStyle = ink;
      context.fillText(`person ${track}`, 4, base - row / 2 + 2);
      for (let index = 0; index < lane.length; index++) {
        const one = lane[index], until = Math.min(index + 1 < lane.length ? lane[index + 1].at : now, one.at + 0.5);
        const x = start + span * (1 - (now - one.at) / TIMELINE_S), high = (row - 8) * one.confidence;
        context.fillStyle = colors[one.emotion];
        context.fillRect(x, base - high, Math.max(1, span * (until - one.at) / TIMELINE_S + 0.5), high);
      }
    });
    context.fillStyle = ink;
    context.globalAlpha = 0.6;
    context.fillText(`${TIMELINE_S} s ago`, start, Math.max(lanes.length, 1) * row + 10);
    context.fillText("now", start + span - 22, Math.max(lanes.length, 1) * row + 10);
    context.globalAlpha = 1;
  }

  find("start").onclick = () => (state.running ? stop() : start());
  find("camera").onchange = () => { stop(); start(); };
  root.querySelectorAll("[name=faces]").forEach(radio => { radio.onchange = sendMode; });
  addEventListener("pagehide", () => state.socket && state.socket.close());
  const pace = () => {
    if (!root.isConnected) return stop();
    sendFrame();
    (video.requestVideoFrameCallback && state.running ? callback => video.requestVideoFrameCallback(callback) : requestAnimationFrame)(pace);
  };
  setInterval(sendFrame, 100);  // a page in the background gets no frames to draw, but goes on reading
  pace();
  fetch("/faces").then(reply => reply.json()).then(mode => { root.querySelector(`[name=faces][value=${mode}]`).checked = true; sendMode(); });
});

// ---------------------------------------------------------------- photo

whenThere("photo", root => {
  const find = name => root.querySelector(`[data-part=${name}]`);
  const colors = JSON.parse(root.dataset.colors), canvas = find("picture"), message = find("message");

  async function read(blob) {
    message.textContent = "reading…";
    message.hidden = false;
    root.dataset.state = "reading";
    let told;
    try {
      told = await (await fetch("/photo", {method: "POST", body: blob, headers: {"Content-Type": "application/octet-stream"}})).json();
    } catch {
      told = {error: "The server does not answer: is demo/app.py still running?"};
    }
    find("result").hidden = Boolean(told.error);
    message.textContent = told.error || (told.readings.length ? "" : "No face was found: faces are found from the front, upright and not too small.");
    message.hidden = !message.textContent;
    if (!told.error) await show(told);
    root.dataset.state = told.error ? "error" : "done";
    root.dataset.faces = told.error ? "" : told.readings.length;
  }

  async function show(told) {
    const picture = new Image();
    picture.src = told.picture;  // as the server saw it: turned upright, without transparency
    await picture.decode();
    const width = Math.min(canvas.parentElement.clientWidth || 640, 900), scale = width / told.width;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${told.height * scale}px`;
    const context = fitCanvas(canvas, width, told.height * scale);
    context.drawImage(picture, 0, 0, width, told.height * scale);
    drawReadings(context, told.readings, colors, {scale, mirror: false, width, height: told.height * scale});
    find("faces").replaceChildren(...told.readings.map((reading, number) => card(reading, number + 1)));
  }

  function card(reading, number) {
    const element = document.createElement("div");
    element.className = "face";
    const title = document.createElement("strong");
    title.textContent = `${EMOJI[reading.emotion]} ${number}: ${reading.unsure ? "unsure, " : ""}${reading.emotion} ${Math.round(100 * reading.confidence)} %`;
    const bars = document.createElement("div");
    Object.keys(colors).forEach((name, index) => {
      const row = document.createElement("div"), share = reading.probabilities[index];
      row.className = "bar";
      row.innerHTML = `<span>${name}</span><i style="width:${(60 * share).toFixed(1)}%;background:${colors[name]}"></i><b>${(100 * share).toFixed(0)} %</b>`;
      bars.append(row);
    });
    element.append(title);
    if (reading.heat) {
      const pair = document.createElement("div");
      pair.className = "pair";
      for (const [source, text] of [[reading.face, "what the network sees"], [reading.heat, `where it sees ${reading.emotion}`]]) {
        const figure = document.createElement("figure"), picture = new Image(), caption = document.createElement("figcaption");
        picture.src = source;
        picture.alt = caption.textContent = text;
        figure.append(picture, caption);
        pair.append(figure);
      }
      element.append(pair);
    }
    element.append(bars);
    return element;
  }

  find("file").onchange = event => event.target.files[0] && read(event.target.files[0]);
  root.ondragover = event => event.preventDefault();
  root.ondrop = event => { event.preventDefault(); if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]); };
  addEventListener("paste", event => {
    const item = [...(event.clipboardData?.items || [])].find(one => one.type.startsWith("image/"));
    if (item && root.offsetParent) read(item.getAsFile());
  });
  root.querySelectorAll("[data-example]").forEach(button => {
    button.onclick = async () => read(await (await fetch(button.querySelector("img").src)).blob());
  });
});
