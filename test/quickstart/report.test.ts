import test from 'ava'
import fc from 'fast-check'
import { blocksOnLines, sideBySide, textTable, wrap } from '../../lib/quickstart/report.ts'

test('a table lines up its columns', (t) => {
  t.is(
    textTable([
      ['', 'before', 'after'],
      ['greedy EM', '0.11', '0.99'],
    ]),
    ['           before  after', '---------  ------  -----', 'greedy EM    0.11   0.99'].join('\n'),
  )
})

test('wrapping loses nothing but the blanks and line ends it breaks at', (t) => {
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 20 }), (text, width) => {
      const lines = wrap(text, width)
      t.true(lines.every((line) => line.length <= width))
      t.is(lines.join('').replaceAll(' ', ''), text.replaceAll('\n', '').replaceAll(' ', ''))
    }),
  )
})

test('two texts stand side by side', (t) => {
  const picture = sideBySide(['before', 'a b c d e f g h'], ['after', 'x'], 19).split('\n')
  t.deepEqual(picture, ['before   | after', '-------- | --------', 'a b c d  | x', 'e f g h  |'])
})

test('each block of a trajectory gets a line of its own', (t) => {
  t.is(blocksOnLines('<think>a</think><answer>b</answer>'), '<think>a</think>\n<answer>b</answer>')
})
