import test from 'ava'
import { majority, majorityAnswer } from '../../lib/rewards/majority.ts'

test('answers vote by what is left after normalisation', (t) => {
  t.deepEqual(majority(['The Hague', 'hague!', 'Paris']), { answer: 'hague', count: 2, tied: false })
})

test('of answers with equal votes the first wins, and the tie is told', (t) => {
  t.deepEqual(majority(['a b', 'c', 'c', 'A B']), { answer: 'b', count: 2, tied: true })
  t.deepEqual(majority(['x', 'y', 'z', 'z']), { answer: 'z', count: 2, tied: false })
})

test('what normalises to nothing has no vote', (t) => {
  t.deepEqual(majority(['', '!!!', 'the', 'x']), { answer: 'x', count: 1, tied: false })
  t.is(majority(['', '!!!']), null)
  t.is(majorityAnswer([]), null)
})
