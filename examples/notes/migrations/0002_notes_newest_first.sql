CREATE INDEX notes_newest_first ON notes (created_at DESC, id DESC);
