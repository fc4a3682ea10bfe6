const codes = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
  cyan: [36, 39],
} as const

export type Color = keyof typeof codes
export type Painter = (color: Color, text: string) => string

/** Colours for a terminal, none for a pipe, and none when NO_COLOR is set to anything (https://no-color.org). */
export function painterFor(stream: { isTTY?: boolean }, environment = process.env): Painter {
  const forced = environment.FORCE_COLOR !== undefined && environment.FORCE_COLOR !== '0'
  const plain = Boolean(environment.NO_COLOR) || environment.TERM === 'dumb' || !(stream.isTTY || forced)
  if (plain) return (_, text) => text
  return (color, text) => `\u001b[${codes[color][0]}m${text}\u001b[${codes[color][1]}m`
}
