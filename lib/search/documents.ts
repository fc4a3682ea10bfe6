import type { SearchDocument } from './provider.ts'

/**
 * Documents out of what a model wrote as a list: `Doc 1: …`, `Document 2. …`, `3) …`, each to the next; without numbers,
 * each paragraph or else each line is one.
 */
export function parseDocuments(text: string, most: number): SearchDocument[] {
  const marker =
    /^[ \t]*(?:\*\*)?(?:doc(?:ument)?[ \t]*#?\d+|\d{1,2}(?=[.):]))(?:\*\*)?[ \t]*(?:\(title:([^)\n]*)\))?[ \t]*[.):\-–]*(?:\*\*)?[ \t]*/gim
  const marks = [...text.matchAll(marker)]
  const parts = marks.map((mark, index) => ({
    title: mark[1]?.trim().replaceAll('"', ''),
    text: text.slice(mark.index + mark[0].length, marks[index + 1]?.index).trim(),
  }))
  const unmarked = () => {
    const paragraphs = text.split(/\n\s*\n/)
    return (paragraphs.length > 1 ? paragraphs : text.split('\n')).map((part) => ({
      title: undefined,
      text: part.trim(),
    }))
  }
  return (parts.length > 0 ? parts : unmarked())
    .filter((part) => part.text !== '')
    .slice(0, most)
    .map((part) => (part.title ? { title: part.title, text: part.text } : { text: part.text }))
}
