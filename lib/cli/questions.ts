import { type LoadQuestionsOptions, loadQuestions, type Question } from '../data/questions.ts'
import { note } from './common.ts'

/** Loads questions and says on stderr what was odd about the file. */
export async function readQuestionFile(
  path: string,
  answers: LoadQuestionsOptions['answers'] = 'required',
): Promise<Question[]> {
  return loadQuestions(path, {
    answers,
    onReport: ({ rows, kept, issues, counts }) => {
      const odd = Object.entries(counts).filter(([, count]) => count > 0)
      const list = odd.map(([kind, count]) => `${count} ${kind}`).join(', ')
      note(`${path}: ${kept} of ${rows} rows are questions to use${list && ` (${list})`}`)
      for (const { line, message } of issues.slice(0, 3)) note(`  line ${line}: ${message}`)
      if (issues.length > 3) note(`  … and ${issues.length - 3} more`)
    },
  })
}
