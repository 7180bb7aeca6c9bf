CREATE TABLE account (name text PRIMARY KEY, balance integer NOT NULL CHECK (balance >= 0));

CREATE FUNCTION transfer(sender text, receiver text, amount integer) RETURNS void LANGUAGE sql AS $$
    UPDATE account SET balance = balance - amount WHERE name = sender;
    UPDATE account SET balance = balance + amount WHERE name = receiver;
$$;
