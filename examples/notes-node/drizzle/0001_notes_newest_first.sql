CREATE INDEX "notes_newest_first" ON "notes" USING btree ("created_at" DESC, "id" DESC);
