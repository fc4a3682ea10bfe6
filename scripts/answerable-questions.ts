// Keeps the questions whose answer stands in what an index finds for them: answerable-questions.ts INDEX K FILE… > kept.jsonl
import { loadQuestions } from '../lib/data/questions.ts'
import { coverExactMatchScore } from '../lib/rewards/answers.ts'
import { LocalIndex } from '../lib/search/local-index.ts'

const [directory, count, ...files] = process.argv.slice(2)
if (directory === undefined || count === undefined || files.length === 0) {
  console.error('usage: npx tsx scripts/answerable-questions.ts INDEX K FILE… > kept.jsonl')
  process.exit(2)
}
const index = await LocalIndex.open(directory)
for (const file of files) {
  const questions = await loadQuestions(file)
  const kept = questions.filter(({ question, goldenAnswers }) => {
    const found = index.search(question, Number(count))
    return found.some(
      ({ title, text }) => coverExactMatchScore(`${title ?? ''} ${text}`, goldenAnswers) === 1,
    )
  })
  for (const { id, question, goldenAnswers } of kept) {
    process.stdout.write(`${JSON.stringify({ id, question, golden_answers: goldenAnswers })}\n`)
  }
  console.error(`${file}: ${kept.length} of ${questions.length}`)
}
index.close()
