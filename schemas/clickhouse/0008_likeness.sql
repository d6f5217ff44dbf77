-- Which prompts are nearly the same: 64 signs of the prompt's embedding, of which near-duplicates share most.

-- up

ALTER TABLE verdicts ADD COLUMN IF NOT EXISTS likeness UInt64 AFTER prompt_hash;

-- down

ALTER TABLE verdicts DROP COLUMN IF EXISTS likeness;
