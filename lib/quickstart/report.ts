/** Plain-text pictures of a result: a table of before and after, and two texts side by side. */

/** Rows of equal length; the first is the heading, the first column is left-aligned, the others right-aligned. */
export function textTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')
  const rule = widths.map((width) => '-'.repeat(width)).join('  ')
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join('\n')
}

/** Breaks a text into lines of at most `width` characters: at its own line ends, then at blanks, then anywhere. */
export function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((paragraph) => {
    const lines: string[] = []
    let rest = paragraph
    while (rest.length > width) {
      const blank = rest.lastIndexOf(' ', width)
      const end = blank > 0 ? blank : width
      lines.push(rest.slice(0, end))
      rest = rest.slice(blank > 0 ? end + 1 : end)
    }
    return [...lines, rest]
  })
}

/** Two texts in columns under their headings, `width` characters in all. */
export function sideBySide(left: [string, string], right: [string, string], width: number): string {
  const column = Math.max(8, Math.floor((width - 3) / 2))
  const rows = [left, right].map(([heading, text]) => [heading, '-'.repeat(column), ...wrap(text, column)])
  const height = Math.max(rows[0]!.length, rows[1]!.length)
  return Array.from({ length: height }, (_, i) => {
    const line = `${(rows[0]![i] ?? '').padEnd(column)} | ${rows[1]![i] ?? ''}`
    return line.trimEnd()
  }).join('\n')
}

/** A trajectory with one block per line, so that it reads as a conversation with oneself. */
export function blocksOnLines(text: string): string {
  return text.replace(/(<\/(?:think|search|information|answer)>)\s*(?=\S)/g, '$1\n')
}
