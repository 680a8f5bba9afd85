#include "report/html.h"

namespace lithe {

// One colour for each memory class, the same in every report, chosen so that every pair stays apart
// (CIE76 distance of 25 or more) in normal sight, deuteranopia and protanopia; the dark scheme
// lifts the darkest a little.
std::string_view report_style() {
  return R"css(
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2129;--soft:#59636f;--line:#e2e6eb;
--band:#f0f3f6;--blue:#2f5fc4;--blue2:#9db8ea;--orange:#c8590a;--warn:#b3261e;--good:#1c7a46;
--gap:#c9ced6;--measured:#7a8593;
--context:#cec2ca;--weights:#1459c5;--adapters:#a4d47d;--optimizer:#389d6d;--kv_cache:#c64ea2;
--saved_activations:#e1c614;--gradients:#a41427;--temporaries:#84b3f2;--workspace:#9d8b14;
--communication:#7b2450;
--s0:#2f5fc4;--s1:#c8590a;--s2:#1c7a46;--s3:#a03bb0;--s4:#b3261e;--s5:#0c8390;--s6:#7d5a1f;
--s7:#59636f}
@media(prefers-color-scheme:dark){:root{--bg:#11151a;--card:#191f26;--ink:#e7ebf0;--soft:#98a3b0;
--line:#2b333d;--band:#1f262e;--blue:#86abf5;--blue2:#40598c;--orange:#f4a259;--warn:#ff8a80;
--good:#6fd19a;--gap:#444d58;--measured:#8a95a3;
--weights:#2f72e0;--gradients:#c0303f;--communication:#96386a;
--s0:#86abf5;--s1:#f4a259;--s2:#6fd19a;--s3:#d79be0;--s4:#ff8a80;--s5:#5fd0d9;--s6:#cfae74;
--s7:#a9b3be}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:36px 20px 56px}
h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:19px;margin:40px 0 12px}h3{font-size:15px;margin:26px 0 8px}
.top{display:flex;gap:14px;align-items:center;flex-wrap:wrap}
.status{font-size:13px;font-weight:600;padding:2px 11px;border-radius:99px;border:1px solid;
color:var(--soft)}
.status.finished{color:var(--good)}.status.failed,.status.interrupted{color:var(--warn)}
.sub{color:var(--soft);margin:6px 0 0}
.recipe{display:flex;flex-wrap:wrap;gap:6px;margin:14px 0 0;padding:0;list-style:none}
.recipe li{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:2px 9px;
font-size:13px;max-width:100%;overflow-wrap:anywhere}
.recipe span{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:22px 0 0}
.tile,.chart,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 16px}.tile span{color:var(--soft);font-size:13px;display:block}
.tile b{font-size:22px;font-weight:650;line-height:1.3;white-space:nowrap}
.tile em{display:block;font-style:normal;color:var(--soft);font-size:12.5px}
.chart{margin:0;padding:12px 14px 8px;position:relative;min-width:0}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(380px,100%),1fr));gap:14px;
margin-top:14px}
figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;align-items:baseline;
margin-bottom:4px}
figcaption b{font-size:14px;margin-right:auto}
.key{color:var(--soft);white-space:nowrap}.warn{color:var(--warn)}
.key i,.cls i,.tip i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
svg{display:block;width:100%;height:auto;overflow:visible}
.grid{stroke:var(--line);stroke-width:1}
.tick,.phase{font-size:12px;fill:var(--soft)}.end{text-anchor:end}.mid{text-anchor:middle}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
path.raw{stroke:var(--blue2);stroke-width:1.2}path.main{stroke:var(--blue)}
path.eval{stroke:var(--orange)}
circle.raw{fill:var(--blue2)}circle.main{fill:var(--blue)}circle.eval{fill:var(--orange)}
i.raw{background:var(--blue2)}i.main{background:var(--blue)}i.eval{background:var(--orange)}
path.s0{stroke:var(--s0)}.s0{background:var(--s0)}path.s1{stroke:var(--s1)}.s1{background:var(--s1)}
path.s2{stroke:var(--s2)}.s2{background:var(--s2)}path.s3{stroke:var(--s3)}.s3{background:var(--s3)}
path.s4{stroke:var(--s4)}.s4{background:var(--s4)}path.s5{stroke:var(--s5)}.s5{background:var(--s5)}
path.s6{stroke:var(--s6)}.s6{background:var(--s6)}path.s7{stroke:var(--s7)}.s7{background:var(--s7)}
circle.s0,circle.s1,circle.s2,circle.s3,circle.s4,circle.s5,circle.s6,circle.s7{fill:var(--soft)}
path.d1{stroke-dasharray:7 4}path.d2{stroke-dasharray:2 4}
.bad{fill:var(--warn)}
.cursor{stroke:var(--soft);stroke-width:1;visibility:hidden;pointer-events:none}
.band{fill:var(--band)}.b1{fill:none}
.area{stroke:var(--card);stroke-width:.6}
line.peak{stroke:var(--ink);stroke-width:1;stroke-dasharray:3 3}
circle.peak{fill:var(--ink);stroke:var(--card);stroke-width:1.5}
.peaklabel{font-size:13px;font-weight:650;fill:var(--ink);paint-order:stroke;stroke:var(--card);
stroke-width:4px;stroke-linejoin:round}
.tip{position:absolute;z-index:2;pointer-events:none;background:var(--card);color:var(--ink);
border:1px solid var(--line);border-radius:8px;padding:7px 11px;font-size:12.5px;line-height:1.45;
box-shadow:0 6px 22px #0003;max-width:330px;visibility:hidden}
.tip b{display:block;overflow-wrap:anywhere;margin-bottom:2px}
.tip div{display:flex;align-items:baseline;white-space:nowrap}.tip em{font-style:normal;
margin-left:auto;padding-left:18px}
.card{padding:16px 18px}
.peaks{display:grid;grid-template-columns:auto 1fr auto;gap:8px 14px;align-items:center;
font-size:14px;margin-bottom:14px;background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:14px 18px}
.peaks>span{color:var(--soft)}.peaks>b{text-align:right;white-space:nowrap}
.peaks>em{grid-column:2/4;font-style:normal;color:var(--soft);font-size:12.5px;margin-top:-6px}
.bar{display:flex;height:12px;border-radius:3px;overflow:hidden;background:var(--band)}
.bar i{display:block;height:100%}.peaks .bar{height:18px}
.peaks .bar i+i{box-shadow:inset 1px 0 var(--card)}
.gaps{background:var(--gap)}.measured{background:var(--measured)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th{font-weight:500;color:var(--soft);text-align:left;font-size:12.5px}
th,td{padding:7px 12px;border-bottom:1px solid var(--line);vertical-align:middle}
tr:last-child td{border-bottom:0}
.num{text-align:right;white-space:nowrap}.cls{white-space:nowrap}
.name{font-family:ui-monospace,"Cascadia Mono","DejaVu Sans Mono",monospace;font-size:12.5px;
overflow-wrap:anywhere;min-width:220px}
.wide{width:15%;min-width:90px}.life{width:14%;min-width:90px}
.span{position:relative;height:12px;background:var(--band);border-radius:3px}
.span i{position:absolute;top:2px;bottom:2px;min-width:4px;border-radius:2px}
.span u{position:absolute;top:-3px;bottom:-3px;width:1px;background:var(--soft)}
.less{color:var(--good)}.more{color:var(--warn)}
.none,.note{color:var(--soft)}.note{font-size:13px;margin:8px 0 0}
details{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 18px;
margin-top:14px}
summary{cursor:pointer;font-weight:600}
pre{overflow-x:auto;font:12.5px/1.55 ui-monospace,"Cascadia Mono","DejaVu Sans Mono",monospace;margin:
10px 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 20px;margin:10px 0;font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.c-context{background:var(--context);fill:var(--context)}
.c-weights{background:var(--weights);fill:var(--weights)}
.c-adapters{background:var(--adapters);fill:var(--adapters)}
.c-optimizer{background:var(--optimizer);fill:var(--optimizer)}
.c-kv_cache{background:var(--kv_cache);fill:var(--kv_cache)}
.c-saved_activations{background:var(--saved_activations);fill:var(--saved_activations)}
.c-gradients{background:var(--gradients);fill:var(--gradients)}
.c-temporaries{background:var(--temporaries);fill:var(--temporaries)}
.c-workspace{background:var(--workspace);fill:var(--workspace)}
.c-communication{background:var(--communication);fill:var(--communication)}
@media print{.tile,.chart,.scroll,.peaks{break-inside:avoid}body{background:#fff}}
)css";
}

std::string_view report_script() {
  return R"js(
"use strict";
for (const figure of document.querySelectorAll("figure.chart")) {
  const holder = figure.querySelector("script");
  const svg = figure.querySelector("svg");
  if (!holder || !svg) continue;
  const data = JSON.parse(holder.textContent);
  const cursor = svg.querySelector(".cursor");
  const tip = figure.appendChild(document.createElement("div"));
  tip.className = "tip";
  const hide = () => { tip.style.visibility = cursor.style.visibility = "hidden"; };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    let low = 0, high = data.x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (data.x[middle] < x) low = middle; else high = middle;
    }
    const i = x - data.x[low] < data.x[high] - x ? low : high;
    cursor.setAttribute("x1", data.x[i]);
    cursor.setAttribute("x2", data.x[i]);
    tip.replaceChildren();
    tip.appendChild(document.createElement("b")).textContent = data.t[i];
    for (const series of data.s) {
      if (series.v[i] === "") continue;
      const row = tip.appendChild(document.createElement("div"));
      row.appendChild(document.createElement("i")).className = series.c;
      row.append(series.n);
      row.appendChild(document.createElement("em")).textContent = series.v[i];
    }
    const frame = figure.getBoundingClientRect();
    const at = box.left - frame.left + data.x[i] / scale;
    const left = at + 14 + tip.offsetWidth > frame.width ? at - 14 - tip.offsetWidth : at + 14;
    tip.style.left = Math.max(4, left) + "px";
    const top = event.clientY - frame.top - tip.offsetHeight - 10;
    tip.style.top = Math.max(4, top) + "px";
    tip.style.visibility = cursor.style.visibility = "visible";
  });
}
)js";
}

}  // namespace lithe
