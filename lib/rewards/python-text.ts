/**
 * The few string methods of Python on which published scores rest, where JavaScript's own differ:
 * JavaScript's white space has U+FEFF and lacks U+001C-U+001F and U+0085, and its `\b` knows ASCII only.
 */

/** `str.isspace` of Python as the inside of a character class. */
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const NON_SPACE_RUNS = new RegExp(`[^${SPACE}]+`, 'g')
const EDGE_SPACE = new RegExp(`^[${SPACE}]`)

function isSpace(text: string, index: number): boolean {
  const unit = text.charAt(index)
  return unit !== '' && EDGE_SPACE.test(unit)
}

/** `text.split()`: the runs of non-white-space. */
export function splitWords(text: string): string[] {
  return text.match(NON_SPACE_RUNS) ?? []
}

/** `text.strip()`. */
export function strip(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isSpace(text, start)) start++
  while (end > start && isSpace(text, end - 1)) end--
  return text.slice(start, end)
}

/** True when nothing but white space is in `text`, the empty text included. */
export function isBlank(text: string): boolean {
  return strip(text) === ''
}
