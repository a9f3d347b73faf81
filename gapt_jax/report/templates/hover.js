'use strict';
// What the lines of a plot say where one points or taps.
for (const plot of document.querySelectorAll('[data-panels]')) {
  const panels = JSON.parse(plot.dataset.panels);
  const tip = plot.appendChild(document.createElement('div')), rule = plot.appendChild(document.createElement('div'));
  tip.className = 'tip'; rule.className = 'rule'; tip.hidden = rule.hidden = true;
  const hide = () => { tip.hidden = rule.hidden = true; };
  const nearest = (values, at) => values.reduce((best, v, i) => Math.abs(v - at) < Math.abs(values[best] - at) ? i : best, 0);
  const text = value => value === null ? '–' : String(value).replace('-', '\u2212');

  function show(event) {
    const frame = plot.getBoundingClientRect();
    const x = (event.clientX - frame.left) / frame.width, y = (event.clientY - frame.top) / frame.height;
    const panel = panels.find(([[left, top, width, height]]) => x >= left && x <= left + width && y >= top && y <= top + height);
    if (!panel) return hide();
    const [[left, top, width, height], [from, to], name, series] = panel;
    const at = from + (x - left) / width * (to - from);
    const shown = series.filter(([, , xs]) => xs.length).map(([label, color, xs, ys]) => {
      const i = nearest(xs, at);
      return { label, color, x: xs[i], y: ys[i] };
    });
    if (!shown.length) return hide();
    const step = shown[nearest(shown.map(s => s.x), at)].x;
    tip.replaceChildren(document.createTextNode(name + ' ' + text(step)));
    for (const { label, color, x: where, y: value } of shown) {
      const line = tip.appendChild(document.createElement('div')), mark = line.appendChild(document.createElement('span'));
      mark.className = 'mark'; mark.style.background = color;
      line.append(label + ': ' + text(value) + (where === step ? '' : ' (at ' + text(where) + ')'));
    }
    tip.hidden = rule.hidden = false;
    const place = left + (step - from) / (to - from) * width;
    rule.style.left = 100 * place + '%'; rule.style.top = 100 * top + '%'; rule.style.height = 100 * height + '%';
    const room = plot.clientWidth - tip.offsetWidth - 4;
    tip.style.left = Math.max(0, Math.min(room, place * plot.clientWidth + 10)) + 'px';
    tip.style.top = Math.max(0, top * plot.clientHeight - tip.offsetHeight - 4) + 'px';
  }
  plot.addEventListener('pointermove', show);
  plot.addEventListener('pointerdown', show);
  plot.addEventListener('pointerleave', event => event.pointerType === 'mouse' && hide());
}
