/** Horizontal bars as SVG, one colour a series: enough to see a ratio, and small enough to lie beside a report. Drawn by hand, so that nothing has to be installed. */

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Which of the chart's series it belongs to. */
  readonly series: string;
}

export interface Chart {
  /** Of the file, without its ending. */
  readonly name: string;
  readonly title: string;
  /** Of all values: `s`, `MB/s`. */
  readonly unit: string;
  readonly bars: readonly Bar[];
}

const colours = ['#2f6fb7', '#b0b6bd', '#8a6d3b', '#5b8f5b'];
const width = 760;
const labelWidth = 270;
const valueWidth = 90;
const row = 22;
const top = 58;

/** @returns a whole SVG document; `series` are coloured in the order in which they first appear */
export function renderChart({ title, unit, bars }: Chart): string {
  const series = [...new Set(bars.map((bar) => bar.series))];
  const most = Math.max(...bars.map((bar) => bar.value), Number.MIN_VALUE);
  const scale = (width - labelWidth - valueWidth) / most;
  const height = top + bars.length * row + 12;
  const legend = series.map((name, i) => {
    const x = 12 + i * 180;
    return `<rect x="${x}" y="32" width="11" height="11" fill="${colour(i)}"/>${text(x + 17, 42, name)}`;
  });
  const lines = bars.map((bar, i) => {
    const y = top + i * row;
    const length = Math.max(1, Math.round(bar.value * scale));
    const fill = colour(series.indexOf(bar.series));
    return [
      text(labelWidth - 8, y + 14, bar.label, 'end'),
      `<rect x="${labelWidth}" y="${y + 2}" width="${length}" height="${row - 6}" fill="${fill}"/>`,
      text(labelWidth + length + 6, y + 14, `${shown(bar.value)} ${unit}`),
    ].join('');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="12" y="20" font-size="14" font-weight="bold">${escaped(title)}</text>`,
    ...legend,
    ...lines,
    '</svg>',
    '',
  ].join('\n');
}

function colour(index: number): string {
  return colours[index % colours.length]!;
}

function text(x: number, y: number, words: string, anchor: 'start' | 'end' = 'start'): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">${escaped(words)}</text>`;
}

function escaped(words: string): string {
  return words.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function shown(value: number): string {
  return value >= 100 ? String(Math.round(value)) : value.toPrecision(3);
}
