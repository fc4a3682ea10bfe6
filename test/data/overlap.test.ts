import test from 'ava'
import { sharedQuestions } from '../../lib/data/overlap.ts'
import { loadQuestions, type Question } from '../../lib/data/questions.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const ask = (question: string): Question => ({ id: question, question, goldenAnswers: ['x'], fields: {} })

test('a question is found again whatever its case, punctuation and articles', (t) => {
  const training = [ask('Who wrote the Odyssey?'), ask('Where is Rome')]
  const evaluation = [ask('who wrote Odyssey'), ask('Where is Romeo?')]
  t.deepEqual(sharedQuestions(training, evaluation), [evaluation[0]!])
})

testWithShared('no evaluation question occurs in the training questions of the recorded run', async (t) => {
  const training = await loadQuestions(sharedPath('data', 'opentriviaqa.train.jsonl'))
  for (const name of ['opentriviaqa.test', 'triviaqa.test']) {
    const evaluation = await loadQuestions(sharedPath('data', `${name}.jsonl`))
    t.deepEqual(sharedQuestions(training, evaluation), [], name)
  }
})
