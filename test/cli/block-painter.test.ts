import test from 'ava'
import fc from 'fast-check'
import { BlockPainter } from '../../lib/cli/block-painter.ts'
import type { Painter } from '../../lib/cli/colors.ts'

const paint: Painter = (color, text) => `[${color} ${text}]`

function painted(pieces: readonly string[], options?: { onLines: boolean }): string[] {
  const painter = new BlockPainter(paint, options)
  return [...pieces.map((piece) => painter.push(piece)), painter.end()]
}

test('each block is painted with its tags; what is between blocks is not', (t) => {
  const text = 'a<think>b</think> <search>c</search><information>d</information><answer>e</answer>f'
  t.deepEqual(painted([text]), [
    'a[dim <think>b</think>] [yellow <search>c</search>][blue <information>d</information>]' +
      '[green <answer>e</answer>]f',
    '',
  ])
})

test('what may be the beginning of a tag waits until it is certain', (t) => {
  t.deepEqual(painted(['a<', 'thi', 'nk', '>b<', 'x', '</think', '>']), [
    'a',
    '',
    '',
    '[dim <think>b]',
    '[dim <x]',
    '',
    '[dim </think>]',
    '',
  ])
  t.deepEqual(painted(['a <sear']), ['a ', '<sear'])
})

test('a tag inside information is part of it', (t) => {
  const text = '<information><answer>x</answer></information>y'
  t.deepEqual(painted([text]), ['[blue <information><answer>x</answer></information>]y', ''])
})

test('on lines, each block begins one', (t) => {
  const shown = painted(['<think>a</think><search>b</search>\n<answer>'], { onLines: true })
  t.is(shown.join(''), '[dim <think>a</think>][yellow \n<search>b</search>]\n[green <answer>]')
})

test('however the text is cut, the same is painted', (t) => {
  const part = fc.constantFrom(
    '<think>',
    '</think>',
    '<search>',
    '</search>',
    '<',
    'a',
    '</',
    '<information>',
    '😀',
  )
  fc.assert(
    fc.property(fc.array(part, { maxLength: 20 }), fc.integer({ min: 1, max: 5 }), (parts, size) => {
      const text = parts.join('')
      const pieces = text.match(new RegExp(`.{1,${size}}`, 'gsu')) ?? []
      const strip = (shown: string[]) => shown.join('').replaceAll(/\[(dim|yellow|blue|green) |\]/g, '')
      t.is(strip(painted(pieces)), text)
    }),
  )
})
