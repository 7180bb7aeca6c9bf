INSERT INTO account VALUES ('ann', 10), ('bob', 0);
SELECT transfer('ann', 'bob', 4);

DO $$
BEGIN
    ASSERT (SELECT balance FROM account WHERE name = 'ann') = 6, 'ann has paid';
    ASSERT (SELECT balance FROM account WHERE name = 'bob') = 4, 'bob has got it';
    BEGIN
        PERFORM transfer('bob', 'ann', 5);
        ASSERT FALSE, 'nobody pays what they have not got';
    EXCEPTION WHEN check_violation THEN
        NULL;
    END;
END;
$$;
