// Points in a plane on a canvas: pan, zoom, lasso and pick, fluid with 100,000 of them. No library: every frame writes the
// points' pixels into one image, which needs neither WebGL nor a GPU.

/** canvas: to draw on; x, y: N places, any scale; on.pick(point), on.lasso(points): told of what is clicked or lassoed. */
export function makeScatter(canvas, { x, y }, on) {
  const n = x.length;
  const context = canvas.getContext("2d");
  const mask = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colours = new Uint32Array(n).fill(0xff777777);
  const shown = new Uint8Array(n).fill(1); // 0: pale, for it is not in the selection
  const [px, py] = [new Int32Array(n), new Int32Array(n)]; // pixels of each point in the last frame
  let [image, pixels, width, height, ratio] = [null, null, 0, 0, 1];
  let view = { scale: 1, left: 0, top: 0 };
  let [path, drag, waiting, mode, marked, background] = [null, null, false, "pan", -1, 0xffffffff];
  let dirty = true; // the points' pixels are to be written anew; a lasso alone leaves them as they are
  const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  for (let i = 0; i < n; i += 1) {
    if (x[i] < low[0]) low[0] = x[i];
    if (y[i] < low[1]) low[1] = y[i];
    if (x[i] > high[0]) high[0] = x[i];
    if (y[i] > high[1]) high[1] = y[i];
  }

  function fit() {
    const [w, h] = [Math.max(high[0] - low[0], 1e-9), Math.max(high[1] - low[1], 1e-9)];
    const scale = 0.94 * Math.min(width / w, height / h);
    view = { scale, left: width / 2 - scale * (low[0] + w / 2), top: height / 2 + scale * (low[1] + h / 2) };
    ask();
  }

  function resize() {
    ratio = Math.min(2, window.devicePixelRatio || 1);
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!w || !h || (w === width && h === height)) return;
    [canvas.width, canvas.height] = [mask.canvas.width, mask.canvas.height] = [width, height] = [w, h];
    image = context.createImageData(w, h);
    pixels = new Uint32Array(image.data.buffer);
    fit();
  }

  /** The shape of a point as steps in the image: a small disc, smaller where there are many points. */
  function disc(radius) {
    const steps = [];
    const whole = Math.ceil(radius);
    for (let dy = -whole; dy <= whole; dy += 1) {
      for (let dx = -whole; dx <= whole; dx += 1) if (dx * dx + dy * dy <= radius * radius) steps.push(dy * width + dx);
    }
    return Int32Array.from(steps);
  }

  const pale = (colour) => { // a fifth of the colour on the background
    let made = 0xff000000;
    for (const shift of [0, 8, 16]) {
      made |= Math.round(0.2 * ((colour >>> shift) & 255) + 0.8 * ((background >>> shift) & 255)) << shift;
    }
    return made >>> 0;
  };

  function draw() {
    waiting = false;
    if (!image) return;
    const radius = (n > 30000 ? 1 : n > 5000 ? 2 : 3) * ratio * Math.min(2, Math.max(1, Math.sqrt(zoom())));
    if (dirty) write(radius);
    dirty = false;
    context.putImageData(image, 0, 0);
    over(radius);
  }

  function write(radius) {
    const steps = disc(radius);
    const edge = Math.ceil(radius) + 1;
    const { scale, left, top } = view;
    pixels.fill(background);
    for (const pass of [0, 1]) { // the selection on top
      for (let i = 0; i < n; i += 1) {
        if (shown[i] !== pass) continue;
        const a = (px[i] = (left + scale * x[i]) | 0);
        const b = (py[i] = (top - scale * y[i]) | 0);
        if (a < edge || b < edge || a >= width - edge || b >= height - edge) continue;
        const colour = pass ? colours[i] : pale(colours[i]);
        const at = b * width + a;
        for (let k = 0; k < steps.length; k += 1) pixels[at + steps[k]] = colour;
      }
    }
  }

  /** What lies over the points: the mark and the lasso. */
  function over(radius) {
    const ink = getComputedStyle(canvas).color;
    context.strokeStyle = context.fillStyle = ink;
    context.lineWidth = 2 * ratio;
    if (marked >= 0) {
      context.beginPath();
      context.arc(px[marked], py[marked], radius + 5 * ratio, 0, 7);
      context.stroke();
    }
    if (path) {
      context.beginPath();
      path.forEach(([a, b], i) => (i ? context.lineTo(a, b) : context.moveTo(a, b)));
      context.closePath();
      context.stroke();
    }
  }

  const zoom = () => view.scale / (0.94 * Math.min(width / Math.max(high[0] - low[0], 1e-9), height / Math.max(high[1] - low[1], 1e-9)));
  const ask = (anew = true) => {
    dirty ||= anew;
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  };

  function zoomAt(factor, a = width / 2, b = height / 2) {
    const by = Math.min(200 / zoom(), Math.max(0.5 / zoom(), factor));
    view = { scale: view.scale * by, left: a - by * (a - view.left), top: b - by * (b - view.top) };
    ask();
  }

  function pan(a, b) { view = { ...view, left: view.left + a, top: view.top + b }; ask(); }

  /** The points within a path of pixels: the path is filled, and each point looks up its pixel. */
  function inside(corners) {
    mask.clearRect(0, 0, width, height);
    mask.beginPath();
    corners.forEach(([a, b], i) => (i ? mask.lineTo(a, b) : mask.moveTo(a, b)));
    mask.fill();
    const filled = mask.getImageData(0, 0, width, height).data;
    const found = [];
    for (let i = 0; i < n; i += 1) {
      const [a, b] = [px[i], py[i]];
      if (a >= 0 && b >= 0 && a < width && b < height && filled[4 * (b * width + a) + 3] > 127) found.push(i);
    }
    return found;
  }

  function nearest(a, b, most) {
    let [best, far] = [-1, most * most];
    for (let i = 0; i < n; i += 1) {
      const apart = (px[i] - a) ** 2 + (py[i] - b) ** 2;
      if (apart < far) [best, far] = [i, apart];
    }
    return best;
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture?.(event.pointerId);
    drag = { from: place(event), last: place(event), moved: false };
    if (mode === "lasso" || event.shiftKey) path = [drag.from];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const now = place(event);
    if (Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]) > 4 * ratio) drag.moved = true;
    if (path) { path.push(now); ask(false); } else if (drag.moved) pan(now[0] - drag.last[0], now[1] - drag.last[1]);
    drag.last = now;
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const [moved, corners] = [drag.moved, path];
    drag = path = null;
    if (!moved) on.pick(nearest(...place(event), 10 * ratio));
    else if (corners) on.lasso(inside(corners));
    ask(false);
  });
  canvas.addEventListener("pointercancel", () => { drag = path = null; ask(false); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(Math.exp(-Math.min(100, Math.max(-100, event.deltaY)) / 250), ...place(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 40 * ratio;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoomAt(1.4);
    else if (event.key === "-") zoomAt(1 / 1.4);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  });
  new ResizeObserver(resize).observe(canvas);
  resize();

  return {
    fit,
    zoom: zoomAt,
    pan,
    inside,
    draw,
    mode(wanted) { mode = wanted; canvas.dataset.mode = wanted; },
    mark(point) { marked = point; ask(false); },
    /** of(i): a colour as #rrggbb; paper: that of the background. */
    colour(of, paper = "#ffffff") {
      const packed = (hex) => (0xff000000 | (parseInt(hex.slice(5, 7), 16) << 16) | (parseInt(hex.slice(3, 5), 16) << 8) | parseInt(hex.slice(1, 3), 16)) >>> 0;
      const known = new Map();
      background = packed(paper);
      for (let i = 0; i < n; i += 1) {
        const hex = of(i);
        if (!known.has(hex)) known.set(hex, packed(hex));
        colours[i] = known.get(hex);
      }
      ask();
    },
    /** points: the selection; null: all. */
    select(points) {
      shown.fill(points ? 0 : 1);
      for (const point of points ?? []) shown[point] = 1;
      ask();
    },
  };
}
