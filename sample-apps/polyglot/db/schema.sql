CREATE TABLE items (name text PRIMARY KEY, price integer NOT NULL);
INSERT INTO items VALUES ('apple', 3), ('bread', 5), ('cheese', 9);
